// What happened to a run, line by line, for who wants to know.

import { byId, element } from "../lib/dom.js";
import { sentence } from "../lib/explain.js";
import { readEvents } from "../lib/event-stream.js";
import * as service from "../lib/service.js";
import { label, time } from "../lib/words.js";

const SAYS = {
  queued: () => "Waits for a worker",
  started: ({ attempt }) => (attempt > 1 ? `A worker has begun, attempt ${attempt}` : "A worker has begun"),
  requeued: ({ reason, error }) => `Waits for another attempt: ${error || reason || "its worker stopped"}`,
  resumed: () => "Somebody let it go on",
  cancelling: ({ mode }) => `Somebody cancelled it (${mode})`,
  waiting: () => "It asks a person",
  answered: () => "It was answered",
  succeeded: () => "It ended well",
  failed: ({ message }) => `It failed: ${message || "no reason was given"}`,
  cancelled: () => "It ended, cancelled",
  dead: ({ message }) => `It was stopped, and needs a person: ${message || "its workers were lost again and again"}`,
  progress: ({ description, step, percent }) => `${label(step)}${description ? `: ${description}` : ""} · ${percent} %`,
};

/** The list of events of a run that has ended; it is asked for when it is opened. */
export class HistoryView {
  #box = byId("history");
  #id = null;
  #leaving = new AbortController();

  constructor() {
    this.#box.addEventListener("toggle", () => {
      if (this.#box.open && byId("history-list").children.length === 0) this.#load();
    });
  }

  show(id) {
    this.close();
    this.#id = id;
    this.#box.hidden = false;
  }

  close() {
    this.#leaving.abort();
    this.#leaving = new AbortController();
    this.#box.open = false;
    this.#box.hidden = true;
    byId("history-list").replaceChildren();
    byId("history-error").textContent = "";
  }

  async #load() {
    const { signal } = this.#leaving;
    byId("history-error").textContent = "";
    try {
      const { body } = await service.openEvents(this.#id, null, signal);
      for await (const event of readEvents(body)) byId("history-list").append(line(event));
    } catch (error) {
      if (!signal.aborted) byId("history-error").textContent = sentence(error);
    }
  }
}

function line({ kind, data }) {
  const { data: more = {}, at } = JSON.parse(data);
  const says = SAYS[kind]?.(more) ?? label(kind);
  return element("li", {}, element("time", { datetime: at }, time(at, "medium")), element("span", {}, says));
}
