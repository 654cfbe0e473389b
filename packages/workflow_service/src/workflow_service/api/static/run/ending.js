// How a run ended that did not succeed: what happened, and what the person can do.

import { withStop } from "../lib/explain.js";
import { sentenceCase } from "../lib/words.js";

// Errors that are about the document: their message says what to do.
const OF_THE_DOCUMENT = new Set(["UnreadableDocumentError"]);
// Errors that are about what the run was asked for.
const OF_THE_INPUT = new Set(["WorkflowError", "InvalidInputError"]);

/** `{title, detail, advice}` of a run that failed, was cancelled or needs a person. */
export function endingOf(run) {
  const { id, status, error, can_resume: canResume } = run;
  const says = error?.message ? withStop(sentenceCase(error.message)) : "";
  if (status === "cancelled") {
    const advice = canResume ? "What was done is kept: it can go on where it stopped." : "Start it again to have it done.";
    return { title: "The run was cancelled", detail: says, advice };
  }
  if (status === "dead") {
    return {
      title: "This run needs you",
      detail: says || "Its workers were lost again and again.",
      advice: "It was stopped, for it may be what ends them. Try again, and it goes on where it stopped; if it comes back here, tell whoever runs the service.",
    };
  }
  if (OF_THE_DOCUMENT.has(error?.type)) {
    const advice = "Then add the document again. A scan is only pictures: run text recognition on it first.";
    return { title: "The document could not be read", detail: says, advice };
  }
  if (error?.type === "RunTimeoutError") {
    return { title: "The run took too long", detail: says, advice: "Run it again with more time: the limit is under “How it runs”." };
  }
  if (OF_THE_INPUT.has(error?.type)) {
    return { title: "The run could not be done", detail: says, advice: "Change the input and start it again." };
  }
  const again = canResume ? "Try again, and it goes on where it stopped" : "Start it again";
  return {
    title: "The run failed",
    detail: says || "The service gave no reason.",
    advice: `This is probably no fault of what you entered. ${again}; if it fails again, tell whoever runs the service about run ${id}.`,
  };
}
