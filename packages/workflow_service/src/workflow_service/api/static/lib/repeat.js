// Looking again and again, as long as somebody can see it.

/**
 * Await `look()` now and every `interval` ms while the tab is visible, and at once when it becomes visible again.
 *
 * Ends when `signal` is aborted; an error of `look` ends it, too.
 */
export async function repeatWhileVisible(look, interval, signal) {
  while (!signal.aborted) {
    if (document.visibilityState === "visible") await look();
    await nextTurn(interval, signal);
  }
}

function nextTurn(interval, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, interval);
    document.addEventListener("visibilitychange", end);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}
