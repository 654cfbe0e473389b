// One run, from queued to its result or its failure.

import { readAnalysis } from "../contract/analysis.js";
import { ContractView } from "../contract/contract-view.js";
import { byId } from "../lib/dom.js";
import { follow } from "../lib/event-stream.js";
import { explain } from "../lib/explain.js";
import * as service from "../lib/service.js";
import { between, label, time } from "../lib/words.js";
import { Actions } from "../run/actions.js";
import { dataTree } from "../run/data-tree.js";
import { DataView } from "../run/data-view.js";
import { endingOf } from "../run/ending.js";
import { HistoryView } from "../run/history-view.js";
import { ProgressView } from "../run/progress-view.js";
import { QuestionsView } from "../run/questions-view.js";
import { titleOf } from "../run/run-titles.js";
import { isFinal, statusBadge } from "../run/status.js";

const STATUS_AFTER = { queued: "queued", requeued: "queued", resumed: "queued", started: "running", cancelling: "cancelling", waiting: "waiting", answered: "queued" };

export class RunView {
  #progress = new ProgressView();
  #contract = new ContractView();
  #data = new DataView();
  #history = new HistoryView();
  #actions;
  #questions;
  #leaving = new AbortController();
  #id = null;
  #run = null; // as far as it is known

  /** `onRefused(problem)` hears of a key that is no longer accepted, `onGone()` of a run that was deleted. */
  constructor(onRefused, onGone) {
    this.onRefused = onRefused;
    this.#actions = new Actions({
      onRefused,
      onGone,
      onStale: () => this.#load(this.#id),
      onChange: (run) => (isFinal(this.#run.status) ? this.#load(run.id) : this.#showHead(run)),
    });
    this.#questions = new QuestionsView({
      onRefused,
      onStale: () => this.#load(this.#id),
      onAnswered: (run) => {
        this.#questions.close();
        this.#showHead(run);
      },
    });
    byId("failure-retry").addEventListener("click", () => this.#load(this.#id));
  }

  /** Show the run; returns when it has ended and its result stands, or the view was left. */
  open(id) {
    this.#actions.clear();
    return this.#load(id);
  }

  /** Stop following the run. */
  close() {
    this.#leaving.abort();
    this.#history.close();
  }

  async #load(id) {
    this.close();
    this.#id = id;
    const leaving = new AbortController();
    this.#leaving = leaving;
    this.#clear();
    try {
      await this.#show(id, leaving.signal);
    } catch (error) {
      if (leaving.signal.aborted) return;
      this.#progress.close();
      const problem = explain(error);
      if (problem.status === 401) this.onRefused(error);
      else this.#fail({ ...problem, isLost: problem.status !== 404 });
    }
  }

  #clear() {
    this.#run = null;
    byId("run-title").textContent = "Run";
    byId("run-facts").replaceChildren();
    byId("failure").hidden = true;
    byId("asked").hidden = true;
    this.#actions.show(null);
    this.#contract.close();
    this.#data.close();
    this.#questions.close();
    this.#progress.close();
  }

  async #show(id, signal) {
    let run = await service.getRun(id, signal);
    this.#showHead(run);
    this.#showAsked(run);
    this.#name(run, signal);
    if (!isFinal(run.status)) {
      await this.#followToEnd(run, signal);
      if (signal.aborted) return;
      run = await service.getRun(id, signal);
      this.#showHead(run);
    }
    if (run.status === "succeeded") await this.#showResult(run, signal);
    else {
      this.#progress.stop();
      this.#fail(endingOf(run));
    }
    this.#history.show(id);
  }

  #showHead(run) {
    this.#run = run;
    const took = isFinal(run.status) ? between(run.started_at, run.finished_at) : "";
    const facts = [label(run.workflow_name), `started ${time(run.created_at)}`, took && `took ${took}`];
    byId("run-facts").replaceChildren(statusBadge(run), facts.filter(Boolean).join(" · "));
    this.#actions.show(run);
  }

  #showAsked({ input_data: input, options }) {
    const isSet = options && Object.keys(options).length > 0;
    byId("asked-tree").replaceChildren(dataTree(isSet ? { input, options } : { input }));
    byId("asked").open = false;
    byId("asked").hidden = false;
  }

  async #name(run, signal) {
    byId("run-title").textContent = label(run.workflow_name);
    const name = await titleOf(run.id);
    if (signal.aborted || name === null) return;
    byId("run-title").textContent = name;
    document.title = `${name} · Workflow service`;
  }

  async #followToEnd({ id }, signal) {
    this.#progress.open();
    const events = follow(
      (lastEventId) => service.openEvents(id, lastEventId, signal),
      (event) => isFinal(event.kind),
      (isUp) => this.#progress.connection(isUp),
      signal,
    );
    for await (const { kind, data: text } of events) {
      const data = JSON.parse(text).data ?? {};
      this.#progress.add({ kind, data });
      const status = STATUS_AFTER[kind] ?? this.#run.status;
      const { percent = this.#run.percent } = data;
      const { mode = this.#run.cancel_mode } = data;
      if (kind === "waiting") this.#questions.show(id, data.questions);
      else this.#questions.close();
      if (status !== this.#run.status || percent !== this.#run.percent) this.#showHead({ ...this.#run, status, percent, cancel_mode: mode });
    }
  }

  async #showResult(run, signal) {
    const result = await service.getResult(run.id, signal);
    const analysis = run.workflow_name === "contract_analysis" ? readAnalysis(result) : null;
    this.#progress.close();
    this.#data.show(result, `${run.workflow_name}-${run.id}`, analysis === null);
    if (analysis !== null) this.#contract.show(analysis);
  }

  // `isLost` says that the page could not learn how the run stands; else it is the run that did not succeed.
  #fail({ title, detail, advice, isLost = false }) {
    byId("failure-title").textContent = title;
    byId("failure-detail").textContent = detail;
    byId("failure-advice").textContent = advice;
    byId("failure-retry").hidden = !isLost;
    byId("failure").dataset.status = this.#run?.status ?? "";
    byId("failure").hidden = false;
  }
}
