// Server-sent events over fetch: EventSource cannot send the Authorization header.

import { mayPass } from "./explain.js";
import { Problem } from "./service.js";

const SILENCE = 45_000; // ms; the server sends a comment every 15 s, three missing ones mean that it is gone
const FIRST_WAIT = 500; // ms
const LONGEST_WAIT = 10_000; // ms

/** Splits a stream of text into events. Lines end with LF, CRLF or CR; a chunk may end anywhere. */
export class EventParser {
  #rest = "";
  #event = { id: null, kind: "message", data: [] };

  /** The events that `chunk` completes: `{id, kind, data}`, data as text. */
  feed(chunk) {
    const lines = (this.#rest + chunk).split(/\r\n|\n|\r(?!$)/); // a CR at the very end may be half of a CRLF
    this.#rest = lines.pop();
    return lines.map((line) => this.#take(line)).filter((event) => event !== null);
  }

  #take(line) {
    if (line === "") return this.#finish();
    const at = line.indexOf(":");
    const field = at === -1 ? line : line.slice(0, at);
    const value = at === -1 ? "" : line.slice(at + 1).replace(/^ /, "");
    if (field === "id") this.#event.id = value;
    else if (field === "event") this.#event.kind = value;
    else if (field === "data") this.#event.data.push(value);
    return null;
  }

  #finish() {
    const { id, kind, data } = this.#event;
    this.#event = { id: null, kind: "message", data: [] };
    return data.length === 0 ? null : { id, kind: kind || "message", data: data.join("\n") };
  }
}

/** The events of a stream, until it ends; throws a Problem when nothing comes for too long. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await withinSilence(reader.read());
      if (done) return;
      yield* parser.feed(value);
    }
  } finally {
    reader.cancel().catch(() => {}); // also closes the connection of a stream that was left early
  }
}

function withinSilence(reading) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Problem(0, "Silence", "Nothing came for too long.")), SILENCE);
  });
  return Promise.race([reading, silence]).finally(() => clearTimeout(timer));
}

// A person who gets back on line should not wait for the timer.
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      window.removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    window.addEventListener("online", end);
    signal.addEventListener("abort", end);
  });
}

/**
 * Yield events until the stream ends after one for which `isLast(event)`, connecting again after each loss from the
 * event after the last one seen. Such an event may stand in the middle, too: of a run that was resumed.
 *
 * `open(lastEventId)` resolves to a Response; `onConnection(isUp)` hears of each change.
 * Throws the Problem that trying again would not cure (401, 404).
 */
export async function* follow(open, isLast, onConnection, signal) {
  let lastEventId = null;
  let isOver = false;
  let wait = FIRST_WAIT;
  while (!signal.aborted) {
    try {
      const response = await open(lastEventId);
      onConnection(true);
      if (response.status === 204) return; // the run has ended, and its last event was seen
      for await (const event of readEvents(response.body)) {
        wait = FIRST_WAIT;
        if (event.id !== null) lastEventId = event.id;
        isOver = isLast(event);
        yield event;
      }
      if (isOver) return;
    } catch (error) {
      if (signal.aborted) return;
      if (!mayPass(error)) throw error;
    }
    onConnection(false);
    await pause(wait, signal);
    wait = Math.min(wait * 2, LONGEST_WAIT);
  }
}
