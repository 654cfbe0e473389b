// The result of a contract analysis, as the service gives it, in the shape the views work with.

import { sentenceCase } from "../lib/words.js";
import { readable } from "../lib/values.js";

const span = ([start, end]) => ({ start, end });

/**
 * `{filename, text, pages, headings, findings, summary, model}` of `GET /runs/{id}/result`. Spans are in code points. Findings
 * come in the order of the text, so that the next one is always further down.
 */
export function readAnalysis(result) {
  const findings = result.findings.map((finding) => ({
    ...finding,
    span: span(finding.span),
    label: sentenceCase(finding.label),
    value: readable(finding.value),
  }));
  return {
    filename: result.document.filename,
    text: result.text,
    pages: result.document.pages.map((page, index) => ({ number: index + 1, span: span(page) })),
    headings: result.clauses.map(({ span: [start], body: [end] }) => ({ start, end })),
    findings: findings.sort((a, b) => a.span.start - b.span.start || a.span.end - b.span.end),
    summary: result.summary,
    model: result.model ?? null,
  };
}
