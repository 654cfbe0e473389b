// What a failure means for the person and what can be done about it.

import { Problem } from "./service.js";

const BY_STATUS = {
  0: ["The service cannot be reached", "Check that it is running and that you are connected, then try again."],
  401: ["The key is not accepted", "Enter the key again, or ask whoever runs the service for a new one."],
  403: ["This is not allowed", "Your key does not give access to it."],
  404: ["Not found", "It may belong to another key, or it may have been removed."],
  409: ["Not possible now", "Reload the page to see how things stand."],
  413: ["The file is too large", "Split it, or save it with smaller images, and try again."],
  415: ["This kind of file cannot be read", "Use a PDF, Word (DOCX), Markdown or text file."],
  422: ["The service cannot use this", "Check the file and try again."],
  429: ["Too many requests", "Wait a minute, then try again."],
  503: ["The service is not ready", "It may be starting, or one of its servers is down. Try again in a minute."],
};

/** `{title, detail, advice, status}` for any error: a Problem, or a fault of the page itself. */
export function explain(error) {
  if (!(error instanceof Problem)) {
    return { status: -1, title: "The page failed", detail: String(error), advice: "Reload the page." };
  }
  const [title, advice] = BY_STATUS[error.status] ?? [
    error.status >= 500 ? "The service failed" : error.title,
    "Try again; if it happens again, tell whoever runs the service.",
  ];
  return { status: error.status, title, detail: error.status === 0 ? "" : error.detail, advice };
}

/** The same in one or two sentences. */
export function sentence(error) {
  const { title, detail, advice } = explain(error);
  return [title, detail, advice].filter(Boolean).map(withStop).join(" ");
}

export function withStop(text) {
  return /[.!?…]$/.test(text) ? text : `${text}.`;
}
