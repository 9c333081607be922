// What the events of a run tell: its attempts, and each event in words.  Pure.
import { duration } from "./format";
import { parse } from "./json";
import type { Run, RunEvent } from "./model";

export type Told = Record<string, any>;

/** What an event's data says; nothing of it is trusted to be there. */
export function told(event: RunEvent): Told {
  try {
    const found = event.data ? parse(event.data.text, new Set()) : null;
    return found && typeof found === "object" && !Array.isArray(found) ? found : {};
  } catch {
    return {};
  }
}

export interface Attempt {
  number: string;
  token: string;
  worker: string | null;
  from: number;
  /** Null while it goes on. */
  to: number | null;
  /** The event that ended it. */
  outcome: string;
}

const ENDS = new Set(["succeeded", "failed", "retried", "released", "suspended", "expired", "cancelled"]);

export function attemptsIn(events: readonly RunEvent[]): Attempt[] {
  const attempts: Attempt[] = [];
  let open: Attempt | null = null;
  for (const event of events) {
    const data = told(event);
    if (event.event_type === "leased") {
      open = {
        number: text(data.attempt) || "?",
        token: text(data.token),
        worker: text(data.worker) || null,
        from: Date.parse(event.created_at),
        to: null,
        outcome: "leased",
      };
      attempts.push(open);
    } else if (ENDS.has(event.event_type) && open) {
      open.to = Date.parse(event.created_at);
      open.outcome = event.event_type;
      open = null;
    }
  }
  return attempts;
}

/** One sentence for an event; what is not known is left to the data beside it. */
export function inWords(event: RunEvent): string {
  const d = told(event);
  if (!Object.keys(d).length) return ""; // not this role's to read
  const attempt = `attempt ${text(d.attempt)}`;
  const because = d.reason ? `: ${text(d.reason)}` : "";
  const by = d.on_behalf_of ? `${text(d.on_behalf_of)} (as ${text(d.by)})` : text(d.by);
  switch (event.event_type) {
    case "created":
      return `recorded by ${by}`;
    case "leased":
      return `${attempt} begins, with token ${text(d.token)}, at ${text(d.worker)}`;
    case "succeeded":
      return `${attempt} ended well`;
    case "failed":
      return d.attempt == null ? text(d.error) : `${attempt}, the last: ${text(d.error)}`;
    case "retried":
      return `${attempt}: ${text(d.error)}; again ${after(event.created_at, d.run_at)}`;
    case "released":
      return `${attempt} given back by its worker`;
    case "suspended":
      return `${attempt} rests`;
    case "expired":
      return `the worker of ${attempt} is gone: ${text(d.error)}; now ${text(d.to)}${d.suspect ? ", to be run alone" : ""}`;
    case "cancelled":
      return `by ${by}, ${d.from === "leased" ? `during ${attempt}` : `while ${text(d.from)}`}${because}`;
    case "reopened":
      return `by ${by}, up to ${text(d.max_attempts)} attempts${because}`;
    case "heartbeat":
      return `lease extended by ${text(d.seconds)} s`;
    case "progress":
      return progressText(d.progress);
    default:
      return "";
  }
}

/** How far the run says it is: the last that it said, percent from 0 to 100. */
export function progressIn(events: readonly RunEvent[]): { percent: number | null; text: string } | null {
  for (let i = events.length - 1; i >= 0; i--) {
    const event = events[i]!;
    if (event.event_type === "leased") return null; // a new attempt begins from the start
    if (event.event_type !== "progress") continue;
    const { progress } = told(event);
    const percent = Number(progress?.percent);
    return { percent: Number.isFinite(percent) ? Math.min(100, Math.max(0, percent)) : null, text: progressText(progress) };
  }
  return null;
}

function progressText(progress: any): string {
  if (!progress || typeof progress !== "object") return text(progress);
  const percent = progress.percent == null ? "" : `${text(progress.percent)} %`;
  return [percent, text(progress.message ?? "")].filter(Boolean).join("  ");
}

function after(at: string, runAt: unknown): string {
  const seconds = (Date.parse(String(runAt)) - Date.parse(at)) / 1000;
  return Number.isNaN(seconds) ? "later" : seconds < 0.05 ? "at once" : `after ${duration(seconds)}`;
}

const text = (value: unknown): string =>
  value == null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);

/** From when to when the picture of a run goes, milliseconds. */
export function spanOf(run: Run, events: readonly RunEvent[], now: number): [number, number] {
  const from = Date.parse(run.created_at);
  const last = events.length ? Date.parse(events[events.length - 1]!.created_at) : from;
  const to = run.finished_at ? Math.max(last, Date.parse(run.finished_at)) : Math.max(last, now);
  return [from, Math.max(to, from + 1)];
}
