-- SQL for people: sketches unpacked, merged and asked for quantiles, and views of what the API answers. docs/sql.md.

CREATE FUNCTION modelmeter.sketch_int4(sketch bytea, at integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN get_byte(sketch, at) | (get_byte(sketch, at + 1) << 8) | (get_byte(sketch, at + 2) << 16)
    | (get_byte(sketch, at + 3) << 24);
COMMENT ON FUNCTION modelmeter.sketch_int4 IS 'Four bytes of a stored sketch, the lowest first, as a signed number.';

CREATE FUNCTION modelmeter.sketch_int8(sketch bytea, at integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (modelmeter.sketch_int4(sketch, at)::bigint & 4294967295) | (modelmeter.sketch_int4(sketch, at + 4)::bigint << 32);
COMMENT ON FUNCTION modelmeter.sketch_int8 IS 'Eight bytes of a stored sketch, the lowest first.';

CREATE FUNCTION modelmeter.sketch_bytes(number bigint, width integer) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(
    substring(int8send(number), 8, 1) || substring(int8send(number), 7, 1) || substring(int8send(number), 6, 1)
    || substring(int8send(number), 5, 1) || substring(int8send(number), 4, 1) || substring(int8send(number), 3, 1)
    || substring(int8send(number), 2, 1) || substring(int8send(number), 1, 1), 1, width);
COMMENT ON FUNCTION modelmeter.sketch_bytes IS 'The lowest bytes of a number, the lowest first.';

CREATE FUNCTION modelmeter.sketch_sides(sketch bytea)
RETURNS TABLE (sign integer, first_bin integer, at integer, size integer, code integer)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE ROWS 1
AS $$
DECLARE
    flags integer;
    width constant integer[] := ARRAY[0, 1, 2, 3, 2];
    until integer;
BEGIN
    IF sketch IS NULL OR sketch = '' THEN
        RETURN;  -- rollups that count events have no values
    END IF;
    flags := get_byte(sketch, 0);
    FOR side IN -1 .. 1 LOOP
        sign := side;
        first_bin := 0;
        at := 1 + 8 * (flags & 16) / 16;
        until := octet_length(sketch);
        code := CASE WHEN flags & 4 > 0 THEN 4 ELSE flags & 3 END;
        IF sign = 0 THEN
            CONTINUE WHEN flags & 16 = 0;
            at := 1;
            until := 9;
            code := 3;
        ELSIF sign = -1 THEN
            CONTINUE WHEN flags & 8 = 0;
            until := at + 4 + modelmeter.sketch_int4(sketch, at);
            at := at + 4;
        ELSIF flags & 8 > 0 THEN
            at := at + 4 + modelmeter.sketch_int4(sketch, at);
        END IF;
        CONTINUE WHEN at >= until;
        IF code < 4 AND sign <> 0 THEN
            first_bin := modelmeter.sketch_int4(sketch, at);
            at := at + 4;
        END IF;
        size := (until - at) >> width[code + 1];
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION modelmeter.sketch_sides IS
    'Where the values of a stored sketch lie, the negative ones first, then zeros, then positive ones: size counts from `at` on, of
     2 ^ code bytes each, the bins being first_bin and those after it; or, code 4, one bin of four bytes for each value.';

CREATE FUNCTION modelmeter.sketch_count(sketch bytea, at integer, code integer, i integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE code WHEN 0 THEN get_byte(sketch, at + i)
    WHEN 1 THEN get_byte(sketch, at + 2 * i) | (get_byte(sketch, at + 2 * i + 1) << 8)
    WHEN 2 THEN modelmeter.sketch_int4(sketch, at + 4 * i)::bigint & 4294967295
    WHEN 3 THEN modelmeter.sketch_int8(sketch, at + 8 * i)
    ELSE 1 END;
COMMENT ON FUNCTION modelmeter.sketch_count IS 'How many values the i-th bin of a side has.';

CREATE FUNCTION modelmeter.sketch_place(
    sketch bytea, sign integer, first_bin integer, at integer, code integer, i integer
) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sign * (131072 + CASE code WHEN 4 THEN modelmeter.sketch_int4(sketch, at + 4 * i) ELSE first_bin + i END);
COMMENT ON FUNCTION modelmeter.sketch_place IS
    'Where the i-th bin of a side is on the line of numbers: 131072 + b for the positive bin b, 0 for zeros, -(131072 + b) for the
     negative bin b.';

CREATE FUNCTION modelmeter.sketch_places(sketches bytea[]) RETURNS TABLE (place integer, count bigint)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 200 SET enable_sort = off SET jit = off
AS $$
    WITH side AS MATERIALIZED (
        SELECT s.sketch, f.* FROM unnest(sketches) AS s (sketch), modelmeter.sketch_sides(s.sketch) AS f
    ), counted AS (
        SELECT sign * (131072 + first_bin + i) AS place, sum(get_byte(sketch, at + i)) AS count
        FROM side, generate_series(0, size - 1) AS i WHERE code = 0 GROUP BY 1  -- nearly all are such
        UNION ALL
        SELECT modelmeter.sketch_place(sketch, sign, first_bin, at, code, i), modelmeter.sketch_count(sketch, at, code, i)
        FROM side, generate_series(0, size - 1) AS i WHERE code > 0
    )
    SELECT place, sum(count)::bigint FROM counted WHERE count > 0 GROUP BY place
$$;
COMMENT ON FUNCTION modelmeter.sketch_places IS 'The counts of all these sketches together, one row a bin, in no order.';

CREATE FUNCTION modelmeter.sketch_side(places integer[], counts bigint[], code integer, wanted_sign integer) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    WITH place AS (
        SELECT abs(p) - 131072 AS bin, c AS count FROM unnest(places, counts) AS u (p, c) WHERE sign(p) = wanted_sign
    ), side AS (
        SELECT min(bin) AS low, max(bin) AS high FROM place
    )
    SELECT CASE WHEN low IS NULL THEN '' WHEN code = 4 THEN (
        SELECT string_agg(modelmeter.sketch_bytes(bin, 4), '' ORDER BY bin) FROM place, generate_series(1, count)
    ) ELSE modelmeter.sketch_bytes(low, 4) || (
        SELECT string_agg(modelmeter.sketch_bytes(coalesce(count, 0), 1 << code), '' ORDER BY i)
        FROM generate_series(low, high) AS i LEFT JOIN place ON bin = i
    ) END FROM side
$$;
COMMENT ON FUNCTION modelmeter.sketch_side IS 'One side of a sketch in its stored form; empty when no value is on it.';

CREATE FUNCTION modelmeter.sketch_of_places(places integer[], counts bigint[]) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    zeros bigint;
    code integer;
    listed boolean;
    negative bytea;
    positive bytea;
BEGIN
    IF places IS NULL THEN
        RETURN '';
    END IF;
    SELECT CASE WHEN max(c) >= 4294967296 THEN 3 WHEN max(c) >= 65536 THEN 2 WHEN max(c) >= 256 THEN 1 ELSE 0 END
        INTO code FROM unnest(places, counts) AS u (p, c) WHERE p <> 0;
    SELECT coalesce(sum(values) * 4 <= sum(4 + ((high - low + 1) << code)), true) INTO listed FROM (
        SELECT sum(c) AS values, min(abs(p)) AS low, max(abs(p)) AS high
        FROM unnest(places, counts) AS u (p, c) WHERE p <> 0 GROUP BY sign(p)
    ) AS side;
    code := CASE WHEN listed THEN 4 ELSE code END;
    zeros := coalesce(counts[array_position(places, 0)], 0);
    negative := modelmeter.sketch_side(places, counts, code, -1);
    positive := modelmeter.sketch_side(places, counts, code, 1);
    RETURN modelmeter.sketch_bytes(code + CASE WHEN negative = '' THEN 0 ELSE 8 END + CASE WHEN zeros = 0 THEN 0 ELSE 16 END, 1)
        || CASE WHEN zeros = 0 THEN '' ELSE modelmeter.sketch_bytes(zeros, 8) END
        || CASE WHEN negative = '' THEN '' ELSE modelmeter.sketch_bytes(octet_length(negative), 4) || negative END
        || positive;
END
$$;
COMMENT ON FUNCTION modelmeter.sketch_of_places IS
    'The stored form of these counts, the shorter of dense and list. Empty when there are none.';

CREATE FUNCTION modelmeter.merge_sketches(sketches bytea[]) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    places integer[];
    counts bigint[];
BEGIN
    IF sketches IS NULL OR cardinality(sketches) = 1 THEN
        RETURN sketches[1];
    END IF;
    SELECT array_agg(place), array_agg(count) INTO places, counts FROM modelmeter.sketch_places(sketches);
    RETURN modelmeter.sketch_of_places(places, counts);
END
$$;
COMMENT ON FUNCTION modelmeter.merge_sketches IS 'One sketch of all: addition, so the order and the grouping do not matter.';

-- Aggregates have no COMBINEFUNC: what they take is little, and Citus would call array_append in a way that it does not know.
CREATE AGGREGATE modelmeter.merge (sketch bytea) (
    SFUNC = array_append, STYPE = bytea[], FINALFUNC = modelmeter.merge_sketches, PARALLEL = SAFE
);
COMMENT ON AGGREGATE modelmeter.merge(bytea) IS 'One sketch of all. NULL of no rows.';

CREATE FUNCTION modelmeter.sketch_value(place integer) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- 2 base / (1 + base), base = 2^(1/32): then no value in the bin is farther than 1.083 % from it.
RETURN CASE WHEN place = 0 THEN 0.0::double precision ELSE
    sign(place) * (power(2::double precision, (abs(place) - 131072) / 32.0::double precision) * 1.0108300012533735::double precision)
END;
COMMENT ON FUNCTION modelmeter.sketch_value IS 'The value that stands for a bin.';

CREATE FUNCTION modelmeter.bins(sketch bytea)
RETURNS TABLE (lower double precision, upper double precision, count bigint)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 200
AS $$
    SELECT CASE WHEN place >= 0 THEN least ELSE -greatest END, CASE WHEN place >= 0 THEN greatest ELSE -least END, count
    FROM (
        SELECT place, p.count,
            CASE WHEN place = 0 THEN 0 ELSE power(2::double precision, (abs(place) - 131072) / 32.0::double precision) END AS least,
            CASE WHEN place = 0 THEN 0 WHEN abs(place) = 131072 + 32767 THEN 'Infinity' ELSE
                power(2::double precision, (abs(place) - 131071) / 32.0::double precision) END AS greatest
        FROM modelmeter.sketch_places(ARRAY[sketch]) AS p
    ) AS border ORDER BY place
$$;
COMMENT ON FUNCTION modelmeter.bins IS
    'A sketch as a histogram: so many values above lower and up to upper (of negative ones: from lower to below upper; zeros have
     a bin of their own). Bins without values are left out.';

CREATE FUNCTION modelmeter.quantile(
    q double precision, sketch bytea, low double precision DEFAULT NULL, high double precision DEFAULT NULL
) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    side record;
    total bigint;
    rank double precision;
    below bigint;
    share double precision;
    upto bigint := 0;
    value double precision;
    next_value double precision;
BEGIN
    IF q < 0 OR q > 1 OR q = 'NaN' THEN
        RAISE EXCEPTION 'q: % is not between 0 and 1', q USING HINT = 'The 95th percentile is quantile(0.95, ...).';
    END IF;
    SELECT sum(modelmeter.sketch_count(sketch, f.at, f.code, i)) INTO total
    FROM modelmeter.sketch_sides(sketch) AS f, generate_series(0, f.size - 1) AS i;
    IF q IS NULL OR total IS NULL THEN
        RETURN NULL;
    END IF;
    -- Between neighbouring ranks, as NumPy does it (Hyndman and Fan's type 7); the extremes, when known, are exact.
    rank := q * (total - 1);
    below := floor(rank);
    share := rank - below;
    <<sides>>
    FOR side IN SELECT * FROM modelmeter.sketch_sides(sketch) LOOP
        FOR i IN 0 .. side.size - 1 LOOP
            upto := upto + modelmeter.sketch_count(sketch, side.at, side.code,
                CASE WHEN side.sign < 0 THEN side.size - 1 - i ELSE i END);
            CONTINUE WHEN upto <= below;
            next_value := modelmeter.sketch_value(modelmeter.sketch_place(sketch, side.sign, side.first_bin, side.at, side.code,
                CASE WHEN side.sign < 0 THEN side.size - 1 - i ELSE i END));
            value := coalesce(value, next_value);
            EXIT sides WHEN upto > least(below + 1, total - 1);
        END LOOP;
    END LOOP;
    value := CASE WHEN below >= total - 1 THEN coalesce(high, value) WHEN below = 0 THEN coalesce(low, value) ELSE
        least(greatest(value, low), high) END;
    next_value := CASE WHEN below + 1 >= total - 1 THEN coalesce(high, next_value) ELSE
        least(greatest(next_value, low), high) END;
    -- Postgres refuses what does not fit into a double precision, be it too large or too small.
    IF share = 0 OR value = next_value THEN
        RETURN value;
    ELSIF value < -1e307 AND next_value > 1e307 THEN
        RETURN value * (1 - share) + next_value * share;
    ELSIF next_value - value < 1e-290 / share THEN
        RETURN CASE WHEN share < 0.5 THEN value ELSE next_value END;
    END IF;
    RETURN least(value + (next_value - value) * share, next_value);
END
$$;
COMMENT ON FUNCTION modelmeter.quantile IS
    'The q-quantile of a sketch, q from 0 to 1: within 1.1 % of the value. With the exact minimum and maximum of the same rows
     (low, high) it is what the API answers. NULL of an empty sketch.';

-- How partials are merged: Chan's formula, as in rollup.py. The state is count, sum, squared deviations from the mean.
-- What does not fit into a double precision is an error to Postgres, and to us no value: infinite here, NULL in the views.
CREATE FUNCTION modelmeter.narrow(number numeric) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN number = 'NaN' THEN 'NaN' WHEN abs(number) > 1.7976931348623157e308 THEN 'Infinity'
    WHEN abs(number) < 1e-300 THEN 0 ELSE number::double precision END;
COMMENT ON FUNCTION modelmeter.narrow IS 'The nearest double precision, infinite or 0 where there is none.';

CREATE FUNCTION modelmeter.ratio(sum double precision, count double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN abs(sum) < 1e-280 THEN 0 ELSE sum / count END;
COMMENT ON FUNCTION modelmeter.ratio IS 'sum / count; 0 where that is next to nothing.';

CREATE FUNCTION modelmeter.add_moments(
    state double precision[], count bigint, sum double precision, deviation double precision
) RETURNS double precision[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    shift double precision;
    weight double precision;
BEGIN
    IF state IS NULL OR count IS NULL THEN
        RETURN coalesce(state, ARRAY[count, sum, deviation]);
    END IF;
    weight := state[1] / (state[1] + count) * count;
    IF abs(state[2]) < 1e300 AND abs(sum) < 1e300 THEN
        shift := abs(modelmeter.ratio(sum, count) - modelmeter.ratio(state[2], state[1]));
        IF shift < 1e140 AND state[3] < 1e300 AND deviation < 1e300 THEN
            RETURN ARRAY[state[1] + count, state[2] + sum,
                state[3] + deviation + CASE WHEN shift < 1e-140 THEN 0 ELSE shift * shift * weight END];
        END IF;
    END IF;
    RETURN ARRAY[state[1] + count, modelmeter.narrow(state[2]::numeric + sum::numeric), modelmeter.narrow(
        state[3]::numeric + deviation::numeric
        + (sum::numeric / count - state[2]::numeric / state[1]::numeric) ^ 2 * weight::numeric)];
END
$$;
COMMENT ON FUNCTION modelmeter.add_moments IS 'One partial more.';

CREATE FUNCTION modelmeter.mean_of(moments double precision[], low double precision, high double precision)
RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN abs(moments[2]) < 'Infinity' THEN least(greatest(modelmeter.ratio(moments[2], moments[1]), low), high) END;
COMMENT ON FUNCTION modelmeter.mean_of IS 'Between low and high. NULL when it is too large a number.';

CREATE FUNCTION modelmeter.stddev_of(moments double precision[]) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN moments[3] < 'Infinity' THEN sqrt(modelmeter.ratio(moments[3], moments[1])) END;
COMMENT ON FUNCTION modelmeter.stddev_of IS 'That of the population. NULL when it is too large a number.';

CREATE AGGREGATE modelmeter.moments (count bigint, sum double precision, deviation double precision) (
    SFUNC = modelmeter.add_moments, STYPE = double precision[], PARALLEL = SAFE
);
COMMENT ON AGGREGATE modelmeter.moments(bigint, double precision, double precision) IS
    'Count, sum and squared deviations of all rows together.';

CREATE AGGREGATE modelmeter.stddev (count bigint, sum double precision, deviation double precision) (
    SFUNC = modelmeter.add_moments, STYPE = double precision[],
    FINALFUNC = modelmeter.stddev_of, PARALLEL = SAFE
);
COMMENT ON AGGREGATE modelmeter.stddev(bigint, double precision, double precision) IS
    'The standard deviation (of the population) of all rows together.';

CREATE TYPE modelmeter.instant_value AS (at timestamptz, value double precision);

CREATE FUNCTION modelmeter.later(state modelmeter.instant_value, value double precision, at timestamptz)
RETURNS modelmeter.instant_value
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN greatest(state, ROW(at, value)::modelmeter.instant_value);
END
$$;
COMMENT ON FUNCTION modelmeter.later IS 'The later of two; of the same time, the larger.';

CREATE FUNCTION modelmeter.value_of(one modelmeter.instant_value) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (one).value;
COMMENT ON FUNCTION modelmeter.value_of IS 'Without its time.';

CREATE AGGREGATE modelmeter.last (value double precision, at timestamptz) (
    SFUNC = modelmeter.later, STYPE = modelmeter.instant_value, FINALFUNC = modelmeter.value_of, PARALLEL = SAFE
);
COMMENT ON AGGREGATE modelmeter.last(double precision, timestamptz) IS
    'The value of the latest time; of several at that time, the largest.';

-- One row for each series and window: what is folded and what is not yet, together. A condition on name, version, labels,
-- metric or window_start reaches the tables and their indexes.
CREATE VIEW modelmeter.stats_1m AS
SELECT name, version, labels, metric, window_start, count,
    modelmeter.mean_of(moments, min, max) AS mean,
    modelmeter.stddev_of(moments) AS stddev,
    min, max, last, first_at, last_at, moments[2] AS sum, moments[3] AS deviation, sketch
FROM (
    SELECT s.name, s.version, s.labels, m.name AS metric, r.window_start, sum(r.count)::bigint AS count,
        modelmeter.moments(r.count, r.sum, r.deviation) AS moments, min(r.min) AS min, max(r.max) AS max,
        modelmeter.last(r.last, r.last_at) AS last, min(r.first_at) AS first_at, max(r.last_at) AS last_at,
        modelmeter.merge(r.sketch) AS sketch
    FROM (
        SELECT stream_id, metric_id, window_start, count, sum, deviation, min, max, first_at, last_at, last, sketch
        FROM modelmeter.rollup_1m
        UNION ALL
        SELECT stream_id, metric_id, window_start, count, sum, deviation, min, max, first_at, last_at, last, sketch
        FROM modelmeter.rollup_partial_1m
    ) AS r
    JOIN modelmeter.stream AS s USING (stream_id)
    JOIN modelmeter.metric AS m USING (metric_id)
    GROUP BY r.stream_id, s.name, s.version, s.labels, r.metric_id, m.name, r.window_start
) AS merged;
COMMENT ON VIEW modelmeter.stats_1m IS
    'One row a series and minute, only of the events that came faster than minutely_rate: those of slow streams are in stats_1h
     and stats_1d, but in no minute. Sums over time belong on stats_1h.';

CREATE VIEW modelmeter.stats_1h AS
SELECT name, version, labels, metric, window_start, count,
    modelmeter.mean_of(moments, min, max) AS mean,
    modelmeter.stddev_of(moments) AS stddev,
    min, max, last, first_at, last_at, moments[2] AS sum, moments[3] AS deviation, sketch
FROM (
    SELECT s.name, s.version, s.labels, m.name AS metric, r.window_start, sum(r.count)::bigint AS count,
        modelmeter.moments(r.count, r.sum, r.deviation) AS moments, min(r.min) AS min, max(r.max) AS max,
        modelmeter.last(r.last, r.last_at) AS last, min(r.first_at) AS first_at, max(r.last_at) AS last_at,
        modelmeter.merge(r.sketch) AS sketch
    FROM (
        SELECT stream_id, metric_id, window_start, count, sum, deviation, min, max, first_at, last_at, last, sketch
        FROM modelmeter.rollup_1h
        UNION ALL
        SELECT stream_id, metric_id, window_start, count, sum, deviation, min, max, first_at, last_at, last, sketch
        FROM modelmeter.rollup_partial_1h
        UNION ALL
        SELECT stream_id, metric_id, date_bin('1 hour', window_start, '2000-01-01T00:00Z') AS window_start, count, sum, deviation, min, max, first_at, last_at, last, sketch
        FROM modelmeter.rollup_partial_1m
    ) AS r
    JOIN modelmeter.stream AS s USING (stream_id)
    JOIN modelmeter.metric AS m USING (metric_id)
    GROUP BY r.stream_id, s.name, s.version, s.labels, r.metric_id, m.name, r.window_start
) AS merged;
COMMENT ON VIEW modelmeter.stats_1h IS
    'One row a series and hour, of all events.';

CREATE VIEW modelmeter.stats_1d AS
SELECT name, version, labels, metric, window_start, count,
    modelmeter.mean_of(moments, min, max) AS mean,
    modelmeter.stddev_of(moments) AS stddev,
    min, max, last, first_at, last_at, moments[2] AS sum, moments[3] AS deviation, sketch
FROM (
    SELECT s.name, s.version, s.labels, m.name AS metric, r.window_start, sum(r.count)::bigint AS count,
        modelmeter.moments(r.count, r.sum, r.deviation) AS moments, min(r.min) AS min, max(r.max) AS max,
        modelmeter.last(r.last, r.last_at) AS last, min(r.first_at) AS first_at, max(r.last_at) AS last_at,
        modelmeter.merge(r.sketch) AS sketch
    FROM (
        SELECT stream_id, metric_id, window_start, count, sum, deviation, min, max, first_at, last_at, last, sketch
        FROM modelmeter.rollup_1d
        UNION ALL
        SELECT stream_id, metric_id, date_bin('1 day', window_start, '2000-01-01T00:00Z') AS window_start, count, sum, deviation, min, max, first_at, last_at, last, sketch
        FROM modelmeter.rollup_partial_1h
        UNION ALL
        SELECT stream_id, metric_id, date_bin('1 day', window_start, '2000-01-01T00:00Z') AS window_start, count, sum, deviation, min, max, first_at, last_at, last, sketch
        FROM modelmeter.rollup_partial_1m
    ) AS r
    JOIN modelmeter.stream AS s USING (stream_id)
    JOIN modelmeter.metric AS m USING (metric_id)
    GROUP BY r.stream_id, s.name, s.version, s.labels, r.metric_id, m.name, r.window_start
) AS merged;
COMMENT ON VIEW modelmeter.stats_1d IS
    'One row a series and UTC day, of all events.';

CREATE VIEW modelmeter.model_version AS
SELECT s.name, s.version, count(*) AS streams, sum(s.events + coalesce(p.events, 0))::bigint AS events,
    min(least(s.first_at, p.first_at)) AS first_at, max(greatest(s.last_at, p.last_at)) AS last_at
FROM modelmeter.stream AS s
LEFT JOIN (
    SELECT stream_id, sum(count)::bigint AS events, min(first_at) AS first_at, max(last_at) AS last_at
    FROM modelmeter.rollup_partial WHERE metric_id = 0 GROUP BY stream_id
) AS p USING (stream_id)
WHERE s.events + coalesce(p.events, 0) > 0
GROUP BY s.name, s.version;
COMMENT ON VIEW modelmeter.model_version IS 'Every version of every model: its streams, its events and when they were.';
