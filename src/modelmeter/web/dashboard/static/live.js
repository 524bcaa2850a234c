// Server-sent events: what is new, at once; a lost connection says so and comes back.

const FIRST_MS = 500;
const LONGEST_MS = 10_000;
const SILENCE_MS = 25_000; // the server says something every ten seconds

/** `listeners` by kind of event; each is also called after a loss, since something may have been missed. `opened` is called when all is well. */
export function watch(listeners, opened = null) {
  const shown = document.getElementById("live");
  const text = shown.querySelector(".live-text");
  let source = null;
  let wait = FIRST_MS;
  let timer = 0;
  let lost = false;
  let silence = 0;

  function show(state, words) {
    if (shown.dataset.state !== state) shown.dataset.state = state;
    if (text.textContent !== words) text.textContent = words;
  }

  function missed() {
    for (const listener of Object.values(listeners)) listener(null);
  }

  function lose() {
    // Its own retrying ends at an answer that is no stream; ours does not.
    clearTimeout(silence);
    clearTimeout(timer);
    source?.close();
    source = null;
    lost = true;
    show("lost", "Connection lost, trying again");
    timer = setTimeout(open, wait);
    wait = Math.min(wait * 2, LONGEST_MS);
  }

  function heard() {
    clearTimeout(silence);
    silence = setTimeout(lose, SILENCE_MS);
  }

  function open() {
    clearTimeout(timer);
    source?.close();
    source = new EventSource("/ui/live");
    source.addEventListener("open", () => {
      wait = FIRST_MS;
      show("live", "Live");
      heard();
      if (lost) missed();
      else opened?.(); // what came between the page and its stream
      lost = false;
    });
    source.addEventListener("error", lose);
    source.addEventListener("beat", () => {
      heard();
      show("live", "Live");
    });
    source.addEventListener("trouble", () => {
      heard();
      lost = true;
      show("lost", "The database is away");
    });
    for (const [kind, listener] of Object.entries(listeners)) {
      source.addEventListener(kind, (event) => {
        heard();
        show("live", "Live");
        listener(event.data ? JSON.parse(event.data) : null);
      });
    }
  }

  // A page that nobody sees holds no connection: browsers give a server six.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
      clearTimeout(silence);
      source?.close();
      source = null;
      lost = true;
    } else if (!source) {
      open();
    }
  });
  addEventListener("offline", lose);
  addEventListener("online", () => {
    wait = FIRST_MS;
    open();
  });
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => event.persisted && open());
  if (!document.hidden) open();
}
