// What a failure means for the person and what can be done about it.

import { Problem } from "./service.js";
import { count } from "./words.js";

const BY_KIND = {
  "idempotency-key-reused": ["This was sent before, with other input", "Start it once more: it is then a run of its own."],
  "run-status": ["The run has changed meanwhile", "See below how it stands now."],
  "run-not-finished": ["The run has not ended yet", "Wait until it has ended, or cancel it."],
};

const BY_STATUS = {
  0: ["The service cannot be reached", "Check that it is running and that you are connected, then try again. Nothing you entered is lost."],
  401: ["The key is not accepted", "Enter the key again, or ask whoever runs the service for a new one."],
  403: ["This is not allowed", "Your key does not give access to it."],
  404: ["Not found", "It may belong to another key, or it may have been removed."],
  409: ["Not possible now", "Things have changed since this page was loaded: reload it to see how they stand."],
  413: ["This is too large", "Split it, or save it with smaller images, and try again."],
  415: ["This kind of file cannot be read", "Use a PDF, Word (DOCX), Markdown or text file."],
  422: ["The service cannot use this", "Correct it and try again."],
  429: ["Too many requests", "Wait a minute, then try again."],
  503: ["The service is not ready", "It may be starting, or one of its servers is down. Try again in a minute."],
};

/** `{title, detail, advice, status}` for any error: a Problem, or a fault of the page itself. */
export function explain(error) {
  if (!(error instanceof Problem)) {
    return { status: -1, title: "The page failed", detail: String(error), advice: "Reload the page." };
  }
  const [title, advice] = BY_KIND[error.kind] ?? BY_STATUS[error.status] ?? [
    error.status >= 500 ? "The service failed" : error.title,
    "Try again; if it happens again, tell whoever runs the service.",
  ];
  return { status: error.status, title, detail: error.status === 0 ? "" : error.detail, advice: soon(error) ?? advice };
}

function soon({ status, retryAfter }) {
  if (retryAfter === null || ![429, 503].includes(status)) return null;
  return `Try again in ${count(Math.max(retryAfter, 1), "second")}.`;
}

/** The same in one or two sentences. */
export function sentence(error) {
  const { title, detail, advice } = explain(error);
  return [title, detail, advice].filter(Boolean).map(withStop).join(" ");
}

export function withStop(text) {
  return /[.!?…]$/.test(text) ? text : `${text}.`;
}

/** Whether asking again later may help. */
export function mayPass(error) {
  return !(error instanceof Problem) || error.status === 0 || error.status === 429 || error.status >= 500;
}
