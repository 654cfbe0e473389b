// The statuses of a run, in words.

import { element } from "../lib/dom.js";
import { label } from "../lib/words.js";

/** What runs are; the service's words. */
const STATUSES = ["queued", "running", "cancelling", "waiting", "succeeded", "failed", "cancelled", "dead"];

const FINAL = new Set(["succeeded", "failed", "cancelled", "dead"]);
const WORDS = { dead: "Needs you", waiting: "Asks you", active: "Not ended" };

/** What a list of runs can be narrowed to. */
export const CHOICES = ["active", ...STATUSES];

/** The statuses that a choice stands for, as the service knows them. */
export function statusesOf(choice) {
  return choice === "active" ? STATUSES.filter((status) => !FINAL.has(status)) : choice;
}

/** Whether nothing more happens to the run by itself. */
export function isFinal(status) {
  return FINAL.has(status);
}

export function wordOf(status) {
  return WORDS[status] ?? label(status);
}

/** A status as a word on a colour; while it runs with how far it is. */
export function statusBadge({ status, percent = null }) {
  const far = status === "running" && percent !== null ? ` · ${percent} %` : "";
  return element("span", { class: "status", "data-status": status }, wordOf(status) + far);
}
