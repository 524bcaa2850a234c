-- name: extension
-- Whether Citus is here.
SELECT FROM pg_extension WHERE extname = 'citus';

-- name: nodes
-- How many workers there are.
SELECT count(*) FROM citus_get_active_worker_nodes();

-- name: distributed
-- Which tables lie on the workers.
SELECT c.relname FROM pg_dist_partition p JOIN pg_class c ON c.oid = p.logicalrelid
WHERE c.relnamespace = 'modelmeter'::regnamespace;

-- name: functions
-- Those that the views call on the workers.
SELECT p.oid::regprocedure::text FROM pg_proc p
WHERE p.pronamespace = 'modelmeter'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_dist_object d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid)
ORDER BY p.prokind = 'a', p.oid;

-- name: distribute_function
SELECT create_distributed_function(%s::regprocedure);

-- name: distribute_first
SELECT create_distributed_table(%s::regclass, 'stream_id', shard_count => %s);

-- name: distribute_beside
SELECT create_distributed_table(%s::regclass, 'stream_id', colocate_with => %s);

-- name: drop_what_stayed
SELECT truncate_local_data_after_distributing_table(%s::regclass);
