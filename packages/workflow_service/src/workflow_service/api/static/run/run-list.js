// A list of runs, newest first, that keeps itself up to date while it is seen.

import { addressOfRun } from "../lib/address.js";
import { button, element } from "../lib/dom.js";
import * as service from "../lib/service.js";
import { between, label, time } from "../lib/words.js";
import { titleOf } from "./run-titles.js";
import { isFinal, statusBadge } from "./status.js";

const MOST = 100; // runs; as many the service lists at once

/** Shows runs in a list element. `onTryAgain(run)` hears of the button of a run that needs a person. */
export class RunList {
  #list;
  #onTryAgain;
  #items = new Map(); // run id: {run, item}

  constructor(list, onTryAgain) {
    this.#list = list;
    this.#onTryAgain = onTryAgain;
  }

  get size() {
    return this.#items.size;
  }

  /** Whether anything in the list will change by itself. */
  get isMoving() {
    return [...this.#items.values()].some(({ run }) => !isFinal(run.status));
  }

  clear() {
    this.#items.clear();
    this.#list.replaceChildren();
  }

  /** Add older runs at the end; returns the first of their elements. */
  append(runs) {
    const items = runs.filter((run) => !this.#items.has(run.id)).map((run) => this.#add(run));
    this.#list.append(...items);
    return items[0];
  }

  /** Show these runs in place of those of the list; an element whose run did not change stays, and its focus with it. */
  update(runs) {
    const wanted = new Set(runs.map((run) => run.id));
    for (const [id, { item }] of this.#items) {
      if (wanted.has(id)) continue;
      item.remove();
      this.#items.delete(id);
    }
    runs.forEach((run, index) => {
      const known = this.#items.get(run.id);
      if (known === undefined) this.#list.insertBefore(this.#add(run), this.#list.children[index] ?? null);
      else this.#refresh(known, run);
    });
  }

  /** Ask the service for as many runs as are shown, and show how they stand. */
  async refresh(filters, signal) {
    const page = await service.listRuns({ ...filters, limit: Math.min(Math.max(this.size, 1), MOST) }, signal);
    if (this.size <= MOST) this.update(page.runs);
  }

  #add(run) {
    const title = element("span", { class: "run-title" }, label(run.workflow_name));
    const badge = element("span", { class: "run-status" }, statusBadge(run));
    const took = element("span", { class: "run-took" }, tookOf(run));
    const link = element(
      "a",
      { href: addressOfRun(run.id) },
      title,
      element("span", { class: "run-facts" }, element("span", {}, label(run.workflow_name)), element("time", { datetime: run.created_at }, time(run.created_at)), took),
      badge,
    );
    const item = element("li", { "data-run": run.id, "data-status": run.status }, link);
    const known = { run, item, badge, took };
    this.#items.set(run.id, known);
    this.#offer(known);
    titleOf(run.id).then((name) => { if (name !== null) title.textContent = name; });
    return item;
  }

  #refresh(known, run) {
    if (known.run.status === run.status && known.run.percent === run.percent) return;
    known.run = run;
    known.badge.replaceChildren(statusBadge(run));
    known.took.textContent = tookOf(run);
    known.item.dataset.status = run.status;
    this.#offer(known);
  }

  #offer({ run, item }) {
    item.querySelector(":scope > button")?.remove();
    if (run.status !== "dead") return;
    item.append(button("Try again", { class: "small", "aria-label": `Try again: ${label(run.workflow_name)}, ${time(run.created_at)}` }, () => this.#onTryAgain(run)));
  }
}

function tookOf({ started_at: from, finished_at: to }) {
  const took = between(from, to);
  return took && `took ${took}`;
}
