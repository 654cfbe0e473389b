// What a run is doing: bar, steps and the state of the connection.

import { byId, element } from "../lib/dom.js";
import { withStop } from "../lib/explain.js";
import { label, seconds } from "../lib/words.js";

const PATIENCE = 15_000; // ms; longer than a healthy worker needs to take a run

const SAYS = {
  queued: "Waiting for a worker.",
  started: "A worker has begun.",
  requeued: "The worker stopped. The run waits for another one and goes on where it was.",
  resumed: "It goes on where it stopped, as soon as a worker is free.",
  cancelling: "It is being cancelled.",
  waiting: "It waits for your answer.",
  answered: "It goes on with the answer, as soon as a worker is free.",
  succeeded: "Done.",
};

export class ProgressView {
  #card = byId("progress");
  #bar = byId("progress-bar");
  #steps = byId("steps");
  #waiting = 0;

  /** Start anew. */
  open() {
    this.#steps.replaceChildren();
    this.#setPercent(0);
    byId("progress-now").textContent = SAYS.queued;
    byId("connection").textContent = "";
    this.#card.hidden = false;
    byId("progress-label").textContent = "Working on it";
    this.#waitForWorker();
  }

  close() {
    clearTimeout(this.#waiting);
    this.#card.hidden = true;
  }

  /** Show an event of the run: `{kind, data}`. */
  add({ kind, data }) {
    clearTimeout(this.#waiting);
    byId("progress-label").textContent = kind === "waiting" ? "Waiting for you" : "Working on it";
    if (kind === "progress") return this.#addStep(data);
    if (["queued", "requeued", "resumed", "answered"].includes(kind)) this.#waitForWorker();
    const says = kind === "requeued" && data.reason === "unavailable" ? awayFor(data) : (SAYS[kind] ?? "");
    if (["requeued", "resumed", "cancelling", "waiting"].includes(kind)) this.#steps.append(element("li", { class: "aside" }, says));
    if (kind === "succeeded") this.#setPercent(100);
    byId("progress-now").textContent = says;
  }

  /** The run did not succeed: leave its steps, if there were any, to show how far it got. */
  stop() {
    clearTimeout(this.#waiting);
    byId("progress-label").textContent = "How far it got";
    byId("progress-now").textContent = "";
    byId("connection").textContent = "";
    if (this.#steps.children.length === 0) this.close();
  }

  /** Say whether the connection is up. */
  connection(isUp) {
    const text = "The connection to the service was lost. The run goes on there; this page keeps trying to reconnect.";
    const box = byId("connection");
    const says = isUp ? "" : text;
    if (box.textContent !== says) box.textContent = says; // the same words again would be read out again
  }

  #addStep({ percent, description, step }) {
    this.#setPercent(percent);
    const says = description ? `: ${description}` : "";
    byId("progress-now").textContent = withStop(label(step) + says);
    this.#steps.append(
      element(
        "li",
        { "data-step": step },
        element("span", {}, element("strong", {}, label(step)), says),
        element("span", { class: "percent" }, `${percent} %`),
      ),
    );
  }

  #setPercent(percent) {
    this.#bar.value = percent;
    byId("progress-percent").textContent = `${percent} %`;
  }

  #waitForWorker() {
    clearTimeout(this.#waiting);
    this.#waiting = setTimeout(() => {
      byId("progress-now").textContent =
        "Still waiting for a worker. If this lasts, ask whoever runs the service whether a worker is running.";
    }, PATIENCE);
  }
}

function awayFor({ error = "", pause = 0 }) {
  return `Something that it needs is away${error ? `: ${withStop(error)}` : "."} It tries again ${pause > 0 ? `in ${seconds(pause)}` : "soon"}.`;
}
