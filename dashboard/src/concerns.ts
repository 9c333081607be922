// What whoever is on call should look at, worst first, each with where to put it right.  Pure.
import { count, duration, plural } from "./format";
import type { Finding, Pause, Stats, TypeSummary, WorkerInfo } from "./model";
import { href } from "./router";

export interface Concern {
  severity: "error" | "warning" | "notice";
  says: string;
  does: string;
  to: string;
}

const LATE_SECONDS = 60;
/** What is over for longer is told on Workers alone. */
const LOST_MILLISECONDS = 3_600_000;

export interface Known {
  stats: Stats | null;
  types: TypeSummary[] | null;
  pauses: Pause[] | null;
  workers: WorkerInfo[] | null;
  findings: Finding[] | null;
  seconds: number;
  /** The server's time, milliseconds. */
  now: number;
}

export function concernsIn({ stats, types, pauses, workers, findings, seconds, now }: Known): Concern[] {
  const found: Concern[] = [];
  const running = workers?.filter((one) => one.state === "running") ?? null;
  const pending = stats?.runs.pending ?? 0;
  // What is due later needs no worker yet.
  const isDue = stats != null && oldestDue(stats, types, pauses) !== null;
  if (running && !running.length && pending)
    found.push({
      severity: isDue ? "error" : "notice",
      says: `No worker is running; ${plural(pending, "run")} ${pending === 1 ? "is" : "are"} pending.`,
      does: "workers",
      to: href("workers"),
    });
  for (const one of types ?? []) found.push(...ofType(one, running, seconds));
  for (const one of pauses ?? []) {
    const waiting = pendingUnder(one, types ?? []);
    found.push({
      severity: "notice",
      says: `${one.pattern} is paused${one.reason ? `: ${one.reason}` : ""}; ${plural(waiting, "run")} pending.`,
      does: "resume",
      to: href("types"),
    });
  }
  const lost = (workers ?? []).filter(
    (one) => one.state === "lost" && (one.held || now - Date.parse(one.stopped_at ?? one.seen_at) < LOST_MILLISECONDS),
  );
  const held = lost.reduce((sum, one) => sum + one.held, 0);
  if (lost.length)
    found.push({
      severity: "warning",
      says: `${plural(lost.length, "worker")} lost within the hour${held ? `, with ${plural(held, "run")}` : ""}.`,
      does: "workers",
      to: href("workers"),
    });
  for (const one of findings ?? [])
    if ((one.severity === "error" || one.severity === "warning") && !SAID_BY_TYPES.has(one.check))
      found.push({ severity: one.severity, says: `${one.check}: ${one.found}`, does: "health", to: href("health") });
  const order = { error: 0, warning: 1, notice: 2 };
  return found.sort((a, b) => order[a.severity] - order[b.severity]);
}

// What the figures of types and workers tell sooner.
const SAID_BY_TYPES = new Set(["due runs"]);

function ofType(one: TypeSummary, running: WorkerInfo[] | null, seconds: number): Concern[] {
  const found: Concern[] = [];
  const failed = Math.round((one.rates.failed ?? 0) * seconds);
  const well = Math.round((one.rates.succeeded ?? 0) * seconds);
  const pending = one.runs.pending ?? 0;
  if (failed)
    found.push({
      severity: "error",
      says: `${one.type}: ${count(failed)} of ${count(failed + well)} that ended in the last ${duration(seconds)} failed.`,
      does: "see them",
      to: href("runs", { pattern: one.type, status: "failed" }),
    });
  const isDue = one.oldest_due_seconds != null;
  if (!one.is_enabled) return found; // said once for all that its pause covers
  if (pending && one.handled_by === null)
    found.push({
      severity: isDue ? "error" : "notice",
      says: `${one.type}: no worker has ever handled it; ${plural(pending, "run")} pending.`,
      does: "see them",
      to: href("runs", { pattern: one.type, status: "pending" }),
    });
  else if (pending && running?.length && !running.some((worker) => worker.patterns.some((pattern) => covers(pattern, one.type))))
    found.push({
      severity: isDue ? "error" : "notice",
      says: `${one.type}: no running worker handles it; ${plural(pending, "run")} pending.`,
      does: "see them",
      to: href("runs", { pattern: one.type, status: "pending" }),
    });
  else if ((one.oldest_due_seconds ?? 0) > LATE_SECONDS && running?.length)
    found.push({
      severity: "warning",
      says: `${one.type}: the oldest run has been due for ${duration(one.oldest_due_seconds)}; ${plural(pending, "run")} pending.`,
      does: "see them",
      to: href("runs", { pattern: one.type, status: "pending" }),
    });
  return found;
}

/** For how many seconds the oldest run has been due that no pause holds back; null: there is none. */
export function oldestDue(stats: Stats, types: TypeSummary[] | null, pauses: Pause[] | null): number | null {
  if (!types || !pauses?.length) return stats.oldest_due_seconds;
  const waits = types.flatMap((one) => (one.is_enabled && one.oldest_due_seconds != null ? [one.oldest_due_seconds] : []));
  return waits.length ? Math.max(...waits) : null;
}

/** How many runs a pause holds back. */
export const pendingUnder = (pause: Pause, types: readonly TypeSummary[]): number =>
  types.reduce((sum, one) => sum + (one.disabled_by === pause.pattern ? (one.runs.pending ?? 0) : 0), 0);

export const covers = (pattern: string, type: string): boolean =>
  pattern.endsWith("%") ? type.startsWith(pattern.slice(0, -1)) : type === pattern;
