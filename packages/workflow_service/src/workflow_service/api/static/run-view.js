// One run, from queued to its result or its failure.

import { readAnalysis } from "./analysis.js";
import { byId } from "./dom.js";
import { follow } from "./event-stream.js";
import { explain, withStop } from "./explain.js";
import { ProgressView } from "./progress-view.js";
import { ResultView } from "./result-view.js";
import * as service from "./service.js";
import { sentenceCase, time } from "./words.js";

const FINAL = new Set(["succeeded", "failed", "cancelled"]);

export class RunView {
  #progress = new ProgressView();
  #result = new ResultView();
  #leaving = new AbortController();
  #id = null;

  /** `onRefused(problem)` hears of a key that is no longer accepted. */
  constructor(onRefused) {
    this.onRefused = onRefused;
    byId("failure-retry").addEventListener("click", () => this.open(this.#id));
  }

  /** Show the run; returns when it has ended and its result stands, or the view was left. */
  async open(id) {
    this.close();
    this.#id = id;
    const leaving = new AbortController();
    this.#leaving = leaving;
    byId("run-title").textContent = "Analysis";
    byId("run-meta").textContent = "";
    byId("failure").hidden = true;
    this.#result.close();
    this.#progress.close();
    try {
      await this.#show(id, leaving.signal);
    } catch (error) {
      if (leaving.signal.aborted) return;
      this.#progress.close();
      const problem = explain(error);
      if (problem.status === 401) this.onRefused(error);
      else this.#fail({ ...problem, retry: problem.status !== 404 });
    }
  }

  /** Stop following the run. */
  close() {
    this.#leaving.abort();
  }

  async #show(id, signal) {
    let run = await service.getRun(id, signal);
    byId("run-meta").textContent = `Started ${time(run.created_at)}`;
    if (!FINAL.has(run.status)) {
      await this.#followToEnd(id, signal);
      if (signal.aborted) return;
      run = await service.getRun(id, signal);
    }
    if (run.status === "succeeded") {
      const analysis = readAnalysis(await service.getResult(id, signal));
      this.#progress.close();
      this.#result.show(analysis);
      document.title = `${analysis.filename} · Contract analysis`;
    } else {
      this.#progress.stop();
      this.#fail(endOf(run));
    }
  }

  async #followToEnd(id, signal) {
    this.#progress.open();
    const events = follow(
      (lastEventId) => service.openEvents(id, lastEventId, signal),
      (event) => FINAL.has(event.kind),
      (isUp) => this.#progress.connection(isUp),
      signal,
    );
    for await (const { kind, data } of events) this.#progress.add({ kind, data: JSON.parse(data).data ?? {} });
  }

  #fail({ title, detail, advice, retry }) {
    byId("failure-title").textContent = title;
    byId("failure-detail").textContent = detail;
    byId("failure-advice").textContent = advice;
    byId("failure-retry").hidden = !retry;
    byId("failure").hidden = false;
  }
}

// Errors that are about the contract: their message says what to do.
const OF_THE_DOCUMENT = new Set(["UnreadableDocumentError", "WorkflowError", "InvalidInputError"]);

function endOf({ id, status, error }) {
  if (status === "cancelled") {
    return { title: "The analysis was cancelled", detail: "", advice: "Add the contract again to analyse it.", retry: false };
  }
  const says = withStop(sentenceCase(error?.message || "the service gave no reason"));
  if (OF_THE_DOCUMENT.has(error?.type)) {
    const advice = "Then add the contract again. A scan is only pictures: run text recognition on it first.";
    return { title: "The contract could not be read", detail: says, advice, retry: false };
  }
  return {
    title: "The analysis failed",
    detail: says,
    advice: `This is no fault of your file. Add it again; if it fails again, tell whoever runs the service about analysis ${id}.`,
    retry: false,
  };
}
