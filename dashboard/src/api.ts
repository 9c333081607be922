// The server's answers, and whether it gives any.
import { signal } from "@preact/signals";
import { parse } from "./json";

const TIMEOUT_MILLISECONDS = 30_000;
const base = new URL("api/v1/", document.baseURI);

export interface Problem {
  /** The server's word, or `disconnected` where none came. */
  code: string;
  message: string;
  hint: string | null;
  status: number;
}

export class ApiError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.message);
  }
}

/** Whether the server asked for a key that it did not get. */
export const isLockedOut = signal(false);

/** Since when the server does not answer; null while it does. */
export const disconnectedSince = signal<number | null>(null);

/** When it last answered anything: tells one slow answer from a server that is away. */
let answeredAt = 0;

/** How far the server's clock is ahead of this browser's, milliseconds; less than 2 s counts as none. */
export const clockAhead = signal(0);

export const get = (path: string, abort?: AbortSignal): Promise<any> => ask("GET", path, undefined, abort);
export const post = (path: string, body: unknown = {}): Promise<any> => ask("POST", path, JSON.stringify(body));
/** As `post`, with a body whose numbers must keep their digits. */
export const postText = (path: string, body: string): Promise<any> => ask("POST", path, body);
export const address = (path: string): string => new URL(path, base).href;

async function ask(method: string, path: string, body?: string, abort?: AbortSignal): Promise<any> {
  const sentAt = Date.now();
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(address(path), {
      method,
      body,
      signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT_MILLISECONDS), ...(abort ? [abort] : [])]),
      headers: body === undefined ? {} : { "content-type": "application/json" },
      credentials: "same-origin",
      cache: "no-store",
    });
    text = await answer.text();
  } catch (error) {
    if (abort?.aborted) throw error;
    if ((error as Error).name === "TimeoutError" && answeredAt > sentAt) throw new ApiError(tooSlow(method));
    disconnectedSince.value ??= Date.now();
    const message = "The server does not answer.";
    throw new ApiError({ code: "disconnected", message, hint: "Is wf server still running?", status: 0 });
  }
  answeredAt = Date.now();
  disconnectedSince.value = null;
  compareClocks(answer.headers.get("date"), sentAt);
  if (!answer.ok) throw new ApiError(problemOf(answer, text));
  isLockedOut.value = false;
  if (!text) return null;
  try {
    return parse(text);
  } catch {
    throw new ApiError({ code: "unreadable", message: "The answer is not JSON.", hint: null, status: answer.status });
  }
}

const tooSlow = (method: string): Problem => ({
  code: "too_slow",
  message: `The server has not answered this within ${TIMEOUT_MILLISECONDS / 1000} s.`,
  hint:
    method === "GET"
      ? "It answers other questions: the database is slow with this one."
      : "It may be done all the same: look before you try again.",
  status: 0,
});

function problemOf(answer: Response, text: string): Problem {
  let error: Partial<Problem> = {};
  try {
    error = parse(text)?.error ?? {};
  } catch {
    // Not the server's own answer: a proxy's, say.
  }
  if (answer.status === 401) isLockedOut.value = true;
  return {
    code: error.code ?? (answer.status === 404 ? "not_found" : "unavailable"),
    message: error.message ?? `The server answered ${answer.status}.`,
    hint: error.hint ?? null,
    status: answer.status,
  };
}

function compareClocks(date: string | null, sentAt: number): void {
  const there = date ? Date.parse(date) : NaN;
  if (Number.isNaN(there)) return;
  const ahead = there + 500 - (sentAt + Date.now()) / 2; // the header has whole seconds
  clockAhead.value = Math.abs(ahead) < 2000 ? 0 : Math.round(ahead / 1000) * 1000;
}

export const problemIn = (error: unknown): Problem =>
  error instanceof ApiError
    ? error.problem
    : { code: "unexpected", message: String((error as Error)?.message ?? error), hint: null, status: 0 };
