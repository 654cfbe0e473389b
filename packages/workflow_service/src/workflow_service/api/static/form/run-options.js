// How a run is run: isolation, time limit, and who is told of its end.

import { ObjectField } from "./group-fields.js";
import { makeField } from "./make-field.js";

const LONGEST = 7 * 24 * 3600; // seconds; a slip of the finger is longer

const TIERS = {
  none: "On the worker's own loop: the least cost.",
  context: "In a context of its own: whatever it starts ends with it.",
  thread: "On a thread and loop of its own: if it blocks, others go on.",
  process: "In a process of its own: it can be ended whatever it does.",
};

const SCHEMA = {
  type: "object",
  properties: {
    isolation: {
      title: "Isolation",
      enum: Object.keys(TIERS),
      description: "How far the run is kept apart from others; without a choice the service decides",
    },
    timeout: {
      title: "Time limit in seconds",
      type: "number",
      exclusiveMinimum: 0,
      maximum: LONGEST,
      description: "A run that takes longer fails, and says so",
    },
    webhook_url: {
      title: "Tell this address of the end",
      type: "string",
      format: "uri",
      description: "An address that the service sends a message to when the run has ended",
    },
  },
};

/** The fields of a run's options. */
export function makeOptionsField() {
  const field = new ObjectField({ schema: SCHEMA, name: "options", isRequired: true, isRoot: true }, makeField);
  const [isolation] = field.inside();
  const say = () => { isolation.note.textContent = TIERS[isolation.read()] ?? ""; };
  isolation.note = Object.assign(document.createElement("p"), { className: "hint note" });
  isolation.note.setAttribute("role", "status");
  isolation.control.after(isolation.note);
  isolation.element.addEventListener("change", say);
  return { field, refresh: say };
}
