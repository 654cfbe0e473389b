// All runs, by status and workflow.

import { addressOf } from "../lib/address.js";
import { byId, element, say } from "../lib/dom.js";
import { explain, sentence } from "../lib/explain.js";
import { repeatWhileVisible } from "../lib/repeat.js";
import * as service from "../lib/service.js";
import { count, label } from "../lib/words.js";
import { RunList } from "../run/run-list.js";
import { CHOICES, statusesOf, wordOf } from "../run/status.js";

const INTERVAL = 4_000; // ms between looks at runs that are not finished

export class RunsView {
  #runs;
  #asked = {};
  #filters = {}; // as the service knows them
  #next = null;
  #leaving = new AbortController();

  /** `onRefused(problem)` hears of a key that is no longer accepted, `onTryAgain(run)` of a run to resume. */
  constructor(onRefused, onTryAgain) {
    this.onRefused = onRefused;
    this.#runs = new RunList(byId("runs"), onTryAgain);
    const names = CHOICES.map((status) => element("option", { value: status }, wordOf(status)));
    byId("runs-status").replaceChildren(element("option", { value: "" }, "All"), ...names);
    byId("runs-filter").addEventListener("submit", (event) => event.preventDefault());
    byId("runs-filter").addEventListener("change", () => this.#choose());
    byId("runs-clear").addEventListener("click", () => { location.hash = addressOf(["runs", ""]); });
    byId("runs-more").addEventListener("click", () => this.#more());
    byId("runs-reload").addEventListener("click", () => this.open(this.#asked));
  }

  /** Show the runs with this `status` and `workflow_name`; null or "" means all. */
  async open({ status = null, workflow_name: workflow = null }) {
    this.close();
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    this.#asked = { status, workflow_name: workflow };
    this.#filters = { status: statusesOf(status), workflow_name: workflow };
    this.#runs.clear();
    this.#say("");
    byId("runs-more").hidden = true;
    byId("runs-empty").hidden = true;
    byId("runs-clear").hidden = !status && !workflow;
    byId("runs-status").value = status ?? "";
    try {
      await Promise.all([this.#offerWorkflows(workflow, signal), this.#first(signal)]);
      await repeatWhileVisible(() => this.#refresh(signal), INTERVAL, signal);
    } catch (error) {
      this.#fail(error, signal);
    }
  }

  /** Stop looking. */
  close() {
    this.#leaving.abort();
  }

  #choose() {
    location.hash = addressOf(["runs", ""], ["status", byId("runs-status").value || null], ["workflow", byId("runs-workflow").value || null]);
  }

  async #offerWorkflows(chosen, signal) {
    const { workflows } = await service.listWorkflows(signal);
    const names = new Set([...workflows.map(({ name }) => name), ...(chosen ? [chosen] : [])]);
    const options = [...names].map((name) => element("option", { value: name }, label(name)));
    byId("runs-workflow").replaceChildren(element("option", { value: "" }, "All"), ...options);
    byId("runs-workflow").value = chosen ?? "";
  }

  async #first(signal) {
    const page = await service.listRuns(this.#filters, signal);
    this.#runs.append(page.runs);
    this.#goOnAt(page.next);
    const isFiltered = Boolean(this.#filters.status || this.#filters.workflow_name);
    byId("runs-empty").textContent = isFiltered ? "No run is like this." : "None yet. What you start will be listed here.";
    byId("runs-empty").hidden = this.#runs.size > 0;
    this.#count();
  }

  async #more() {
    const { signal } = this.#leaving;
    try {
      const page = await service.listRuns({ ...this.#filters, before: this.#next }, signal);
      this.#runs.append(page.runs)?.querySelector("a").focus();
      this.#goOnAt(page.next);
      this.#count();
    } catch (error) {
      this.#fail(error, signal);
    }
  }

  #goOnAt(next) {
    this.#next = next;
    byId("runs-more").hidden = next === null;
  }

  #count() {
    say(byId("runs-count"), this.#runs.size === 0 ? "" : `${count(this.#runs.size, "run")}${this.#next === null ? "" : ", and older ones"}`);
  }

  async #refresh(signal) {
    if (!this.#runs.isMoving) return;
    try {
      await this.#runs.refresh(this.#filters, signal);
      this.#say("");
    } catch (error) {
      this.#fail(error, signal); // and tries again: the service may come back
    }
  }

  #say(text) {
    byId("runs-error").textContent = text;
    byId("runs-reload").hidden = text === "";
  }

  #fail(error, signal) {
    if (signal.aborted) return;
    if (explain(error).status === 401) this.onRefused(error);
    else this.#say(sentence(error));
  }
}
