// Under steady traffic something is new all the time: asking for it must not be all that a server does.

const LEAST_MS = 1000;
const SHARE = 4; // the pause is at least so many times as long as the work took

/** `work` (async) at once, and again after a pause if it was asked for meanwhile; never twice at a time. */
export function paced(work) {
  let resting = false;
  let wanted = false;
  return async function ask() {
    if (resting) {
      wanted = true;
      return;
    }
    resting = true;
    const began = performance.now();
    try {
      await work();
    } finally {
      setTimeout(() => {
        resting = false;
        if (wanted) {
          wanted = false;
          ask();
        }
      }, Math.max(LEAST_MS, SHARE * (performance.now() - began)));
    }
  };
}
