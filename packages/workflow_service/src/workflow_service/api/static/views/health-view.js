// How the service is: its parts, and what the event loops of the process that answers are doing.

import { byId, say } from "../lib/dom.js";
import { explain, sentence } from "../lib/explain.js";
import { repeatWhileVisible } from "../lib/repeat.js";
import * as service from "../lib/service.js";
import { time } from "../lib/words.js";
import { checkItem, incidentItem, loopCard, poolCard, recommendations, runtimeCard, sums, verdictOf } from "./health-report.js";

const INTERVAL = 5_000; // ms

export class HealthView {
  #leaving = new AbortController();
  #isPaused = false;

  /** `onRefused(problem)` hears of a key that is no longer accepted. */
  constructor(onRefused) {
    this.onRefused = onRefused;
    byId("health-pause").addEventListener("click", () => this.#pause(!this.#isPaused));
  }

  /** Show how things are, again and again while somebody looks. */
  async open() {
    this.close();
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    this.#pause(false);
    await repeatWhileVisible(() => (this.#isPaused ? null : this.#look(signal)), INTERVAL, signal);
  }

  close() {
    this.#leaving.abort();
  }

  #pause(isPaused) {
    this.#isPaused = isPaused;
    byId("health-pause").setAttribute("aria-pressed", String(isPaused));
  }

  // What cannot be asked for does not hide the rest.
  async #look(signal) {
    const [report, checks] = await Promise.allSettled([service.getLoops(signal), service.getChecks(signal)]);
    if (signal.aborted) return;
    const refused = [report, checks].find(({ reason }) => reason !== undefined && explain(reason).status === 401);
    if (refused !== undefined) return this.onRefused(refused.reason);
    const failed = [report, checks].find(({ reason }) => reason !== undefined);
    say(byId("health-error"), failed === undefined ? "" : sentence(failed.reason));
    byId("health-body").classList.toggle("stale", failed !== undefined);
    if (checks.status === "fulfilled") replaceKept(byId("health-checks"), Object.entries(checks.value).map(checkItem));
    if (report.status === "fulfilled") this.#show(report.value);
  }

  #show(report) {
    byId("health-body").hidden = false;
    say(byId("health-verdict"), verdictOf(report));
    byId("health-verdict").dataset.status = report.status;
    byId("health-sums").textContent = `${sums(report)} · process ${report.pid}`;
    byId("health-time").textContent = `As of ${time(report.taken_at * 1000, "medium")}`;
    fill("health-recommendations", recommendations(report));
    fill("health-loops", report.loops.map(loopCard));
    fill("health-runtimes", report.runtimes.map(runtimeCard));
    fill("health-pools", report.resources.map(poolCard));
    fill("health-incidents", report.incidents.map(incidentItem));
  }
}

function fill(id, items) {
  replaceKept(byId(id), items);
  byId(`${id}-none`).hidden = items.length > 0;
}

/** Put new children into `list`; what was opened in the old ones stays open, and the focus stays where it was. */
function replaceKept(list, items) {
  const states = new Map([...list.querySelectorAll("details[data-key]")].map((fold) => [fold.dataset.key, fold.open]));
  const focused = document.activeElement?.closest("details[data-key]");
  const key = focused && list.contains(focused) ? focused.dataset.key : null;
  const isOnText = document.activeElement?.matches("pre");
  list.replaceChildren(...items);
  for (const fold of list.querySelectorAll("details[data-key]")) {
    fold.open = states.get(fold.dataset.key) ?? fold.open;
    if (fold.dataset.key === key) fold.querySelector(isOnText ? "pre" : "summary")?.focus({ preventScroll: true });
  }
}
