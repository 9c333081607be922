// What the server answers; see /openapi.json.
import type { Raw } from "./json";

export const STATUSES = ["pending", "leased", "waiting", "succeeded", "failed", "cancelled"] as const;
export type Status = (typeof STATUSES)[number];

/** What each status means, for who sees it for the first time. */
export const MEANINGS: Record<Status, string> = {
  pending: "recorded; runs when it is due and a worker is free",
  leased: "a worker has it and runs it",
  waiting: "waits for something else to happen",
  succeeded: "ended well; its result is recorded",
  failed: "ended: its attempts are used up",
  cancelled: "ended: somebody cancelled it",
};

export interface Run {
  id: string;
  type: string;
  payload?: Raw | null;
  status: Status;
  priority: number;
  run_at: string;
  idempotency_key: string | null;
  attempt: number;
  max_attempts: number;
  leased_by: string | null;
  lease_until: string | null;
  last_error?: string | null;
  result?: Raw | null;
  created_at: string;
  updated_at: string;
  deleted_at: string | null;
  fencing_token: number | string;
  parent_id: string | null;
  finished_at: string | null;
  hidden?: string[];
}

export interface RunPage {
  runs: Run[];
  next_page: string | null;
  looked_at: number;
  looked_back_to: string | null;
}

export interface RunEvent {
  id: number | string;
  run_id: string;
  event_type: string;
  data: Raw | null;
  created_at: string;
}

export interface Why {
  reason: string;
  says: string;
  remedy: string | null;
  facts: Raw | null;
}

export type Counts = Partial<Record<Status, number>>;
export interface Rates {
  submitted?: number;
  claimed?: number;
  succeeded?: number;
  failed?: number;
  retried?: number;
  cancelled?: number;
  expired?: number;
}

export interface Stats {
  runs: Counts;
  rates: Rates;
  oldest_due_seconds: number | null;
  due: number | null;
  due_is_exact: boolean;
  /** Numbers of runs in steps of so many seconds; the last step is not over. */
  step_seconds: number;
  series: ({ at: string } & Rates)[];
}

export interface Percentiles {
  p50: number | null;
  p95: number | null;
  p99: number | null;
  count: number;
}

export interface TypeSummary {
  type: string;
  runs: Counts;
  rates: Rates;
  oldest_due_seconds: number | null;
  is_enabled: boolean;
  disabled_by: string | null;
  /** The pattern that a worker has registered for it; null: none ever has. */
  handled_by?: string | null;
  runtime?: string | null;
  description?: string | null;
  wait?: Percentiles | null;
  run?: Percentiles | null;
}

export interface Pause {
  pattern: string;
  reason: string | null;
  paused_at: string;
  paused_by: string;
  /** In whose name, where a server did it for somebody. */
  paused_for: string | null;
}

export interface TypesAnswer {
  types: TypeSummary[];
  pauses: Pause[];
}

export interface WorkerInfo {
  id: string;
  host: string;
  pid: number | null;
  version: string | null;
  runtime: string | null;
  patterns: string[];
  concurrency: number | null;
  started_at: string;
  seen_at: string;
  stopped_at: string | null;
  held: number;
  state: "running" | "stopping" | "lost" | "stopped";
  /** A few of those that it holds, the longest first. */
  holds?: { id: string; type: string; attempt: number; leased_at: string; lease_until: string }[];
}

export interface Schedule {
  id: string;
  type: string;
  schedule: string;
  timezone: string;
  next_run_at: string | null;
  last_run_at: string | null;
  enabled: boolean;
}

export interface Operation {
  id: string;
  kind: "cancel" | "reopen";
  patterns: string[];
  statuses: string[];
  created_from: string | null;
  created_before: string | null;
  attempts: number | null;
  reason: string | null;
  state: "running" | "stopped" | "finished" | "failed";
  /** Null until they have been counted. */
  matched: number | null;
  done: number;
  changed: number;
  requested_by: string;
  on_behalf_of: string | null;
  requested_at: string;
  started_at: string | null;
  ended_at: string | null;
  stopped_by: string | null;
  error: string | null;
}

export interface Finding {
  check: string;
  severity: "ok" | "notice" | "warning" | "error";
  found: string;
  why: string | null;
  remedy: string | null;
}

export interface Me {
  name: string | null;
  role: "reader" | "operator" | "admin";
  version: string;
}
