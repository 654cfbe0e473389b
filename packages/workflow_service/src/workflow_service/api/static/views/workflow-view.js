// One workflow: its form, filled in, checked and sent.

import { addressOfRun } from "../lib/address.js";
import { byId, say } from "../lib/dom.js";
import { forgetDraft, keepDraft, readDraft } from "../lib/drafts.js";
import { explain, sentence } from "../lib/explain.js";
import * as service from "../lib/service.js";
import { label } from "../lib/words.js";
import { WorkflowForm } from "../form/workflow-form.js";

export class WorkflowView {
  #name = null;
  #from = null; // id of the run that the form was filled in from, or null
  #form = null;
  #sent = null; // what was sent last, as text, and its idempotency key
  #isBusy = false;
  #leaving = new AbortController();

  /** `onRefused(problem)` hears of a key that is no longer accepted. */
  constructor(onRefused) {
    this.onRefused = onRefused;
    const form = byId("workflow-form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    for (const kind of ["input", "change"]) form.addEventListener(kind, () => this.#keep());
    byId("workflow-clear").addEventListener("click", () => {
      forgetDraft(this.#name);
      this.open(this.#name, null);
      byId("workflow-title").focus();
    });
    byId("workflow-reload").addEventListener("click", () => this.open(this.#name, this.#from));
  }

  /** Show the form of the workflow `name`, filled in with what was begun before or, from a run's id, with its input. */
  async open(name, from) {
    this.close();
    this.#name = name;
    this.#from = from;
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    byId("workflow-title").textContent = label(name);
    byId("workflow-description").textContent = "";
    byId("workflow-form").hidden = true;
    this.#say("");
    try {
      const [{ workflows }, run] = await Promise.all([service.listWorkflows(signal), from === null ? null : service.getRun(from, signal)]);
      const workflow = workflows.find((each) => each.name === name);
      if (workflow === undefined) return this.#say(`There is no workflow “${name}” any more. Choose another one.`);
      this.#show(workflow, run);
    } catch (error) {
      if (signal.aborted) return;
      if (explain(error).status === 401) this.onRefused(error);
      else this.#say(sentence(error), true);
    }
  }

  /** Leave the form; what is in it is kept for the next time. */
  close() {
    this.#leaving.abort();
    this.#form?.leave();
    this.#form = null;
  }

  #say(text, canReload = false) {
    byId("workflow-error").textContent = text;
    byId("workflow-reload").hidden = !canReload;
  }

  #show({ name, description, input_schema: schema }, run) {
    byId("workflow-description").textContent = description;
    byId("workflow-faults").hidden = true;
    this.#form = new WorkflowForm(schema);
    const draft = run === null ? readDraft(name) : null;
    if (run !== null) this.#form.write(run.input_data, run.options);
    else {
      this.#form.write(undefined, undefined);
      if (draft !== null) this.#form.restore(draft);
    }
    byId("workflow-kept").textContent = draft === null ? "" : "This is as you left it.";
    byId("workflow-form").hidden = false;
  }

  #keep() {
    if (this.#form !== null) keepDraft(this.#name, this.#form.state());
  }

  async #submit() {
    if (this.#isBusy) return;
    const form = this.#form;
    const { signal } = this.#leaving;
    this.#setBusy(true);
    this.#say("");
    try {
      if (!(await form.check()) || signal.aborted) return;
      const id = await this.#send(form.input() ?? {}, form.options());
      forgetDraft(this.#name);
      location.hash = addressOfRun(id);
    } catch (error) {
      if (signal.aborted) return;
      if (explain(error).status === 401) this.onRefused(error);
      else if (error.status !== 422 || !form.blame(error)) this.#say(sentence(error));
    } finally {
      this.#setBusy(false);
    }
  }

  // Sent again after an answer was lost it is the same run, and not a second one.
  async #send(input, options) {
    const text = JSON.stringify([this.#name, input, options]);
    if (this.#sent?.text !== text) this.#sent = { text, key: service.newIdempotencyKey() };
    const { run_id: id } = await service.execute(this.#name, input, options, this.#sent.key);
    this.#sent = null;
    return id;
  }

  #setBusy(isBusy) {
    this.#isBusy = isBusy;
    byId("workflow-start").setAttribute("aria-disabled", String(isBusy));
    say(byId("workflow-status"), isBusy ? "Starting…" : "");
  }
}
