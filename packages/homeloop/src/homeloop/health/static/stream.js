// Server-sent events over fetch: EventSource cannot send the Authorization header.

const SILENCE = 20_000; // ms; the process tells something every second
const FIRST_WAIT = 500; // ms
const LONGEST_WAIT = 5_000; // ms

/** The token is missing or wrong. */
export class Refused extends Error {}

/** Yield what the page's process tells about `pid` ("" for the first one), connecting again after each loss. */
export async function* follow(pid, token, onConnection, signal) {
  let wait = FIRST_WAIT;
  while (!signal.aborted) {
    try {
      for await (const told of readOnce(pid, token, signal)) {
        onConnection(true);
        wait = FIRST_WAIT;
        yield told;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused) throw error;
    }
    if (signal.aborted) return;
    onConnection(false);
    await pause(wait, signal);
    wait = Math.min(wait * 2, LONGEST_WAIT);
  }
}

async function* readOnce(pid, token, signal) {
  const stop = new AbortController();
  const end = () => stop.abort();
  signal.addEventListener("abort", end);
  let timer = setTimeout(end, SILENCE);
  try {
    const response = await fetch(`events?pid=${encodeURIComponent(pid)}`, {
      headers: { Authorization: `Bearer ${token}` },
      cache: "no-store",
      credentials: "omit",
      signal: stop.signal,
    });
    if (response.status === 401) throw new Refused("The token is wrong, or the page was started anew.");
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    let rest = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(end, SILENCE);
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    stop.abort(); // also closes the connection of a stream that was left early
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
  });
}
