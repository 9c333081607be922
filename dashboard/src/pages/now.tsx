// Now: what needs somebody, what happens, and how each type fares.
import { useMemo, useState } from "preact/hooks";
import { Chart, type Line } from "../chart";
import { count, duration, plural, rate } from "../format";
import { now, useLive } from "../live";
import type { Finding, Stats, TypeSummary, TypesAnswer, WorkerInfo } from "../model";
import { Answer, Choice, Empty, Page, Shape, WINDOWS } from "../parts";
import { href } from "../router";
import { mayOperate } from "../session";
import { type Concern, concernsIn, oldestDue } from "../concerns";
import { TypeTable } from "./types";

const TYPES_MAX = 12;
const CONCERNS_MAX = 8;

export function Now() {
  const [seconds, setSeconds] = useState<number>(300);
  const stats = useLive<Stats>(`stats?window_seconds=${seconds}`, seconds > 3600 ? 5 : 2);
  const types = useLive<TypesAnswer>(`types?window_seconds=${seconds}`, 5);
  const workers = useLive<{ workers: WorkerInfo[] }>("workers", 5);
  const health = useLive<{ findings: Finding[] }>(mayOperate.value ? "health" : null, 60);
  const alive = workers.answer?.workers.filter((one) => one.state === "running") ?? null;
  const concerns = concernsIn({
    stats: stats.answer,
    types: types.answer?.types ?? null,
    pauses: types.answer?.pauses ?? null,
    workers: workers.answer?.workers ?? null,
    findings: health.answer?.findings ?? null,
    now: now.value,
    seconds,
  });
  const isKnown = !!(stats.answer && types.answer && workers.answer && (health.answer || !mayOperate.value));
  const hasMore = (types.answer?.types.length ?? 0) > TYPES_MAX;

  return (
    <Page
      title="Now"
      says="What runs, what waits, what fails, and what needs you."
      aside={<Choice label="window" options={WINDOWS} value={seconds} choose={setSeconds} />}
    >
      <Concerns concerns={concerns} isKnown={isKnown} />
      <Answer live={stats} what="its figures">
        {(answer) => (
          <>
            <Tiles stats={answer} types={types.answer} workers={alive} />
            <Throughput stats={answer} />
          </>
        )}
      </Answer>
      <section aria-labelledby="by-type">
        <h2 id="by-type">
          By type{" "}
          <a class="more" href={href("types")}>
            {hasMore ? `all ${count(types.answer?.types.length)} types` : "all figures"}, pause, resume
          </a>
        </h2>
        <Answer live={types} what="its types">
          {(answer) =>
            answer.types.length ? (
              <TypeTable types={telling(answer.types)} isShort />
            ) : (
              <Empty title="No types yet.">Start a worker, or submit a run: its type then stands here.</Empty>
            )
          }
        </Answer>
      </section>
      {workers.problem && <Answer live={workers} what="its workers">{() => null}</Answer>}
    </Page>
  );
}

/** The types that need somebody or move, by name as always, so that rows keep their places. */
function telling(types: TypeSummary[]): TypeSummary[] {
  const rank = ({ runs, rates, oldest_due_seconds }: TypeSummary) =>
    (rates.failed ? 8 : 0) + (oldest_due_seconds == null ? 0 : 4) + (runs.leased ? 2 : 0) + (rates.succeeded ? 1 : 0);
  const first = new Set([...types].sort((a, b) => rank(b) - rank(a)).slice(0, TYPES_MAX));
  return types.filter((one) => first.has(one));
}

function Concerns({ concerns, isKnown }: { concerns: Concern[]; isKnown: boolean }) {
  if (!concerns.length)
    return isKnown ? (
      <div class="concerns is-well" role="status">
        <Shape of="succeeded" /> All is well: nothing fails, nothing waits that should run.
      </div>
    ) : null;
  return (
    <ul class="concerns" aria-label="what needs you">
      {concerns.slice(0, CONCERNS_MAX).map((one) => (
        <li key={one.says} class={`is-${one.severity}`}>
          <Shape of={one.severity === "error" ? "failed" : one.severity === "warning" ? "warning" : "notice"} />
          <span>
            <bdi>{one.says}</bdi>
          </span>
          <a href={one.to}>{one.does}</a>
        </li>
      ))}
      {concerns.length > CONCERNS_MAX && <li class="soft">and {count(concerns.length - CONCERNS_MAX)} more, none of them worse</li>}
    </ul>
  );
}

function Tile(props: { name: string; value: string; unit?: string; says: preact.ComponentChildren; to: string; tone?: string; title?: string }) {
  return (
    <a class={`tile ${props.tone ?? ""}`} href={props.to} title={props.title}>
      <span class="tile-name">{props.name}</span>
      <span class="tile-value">
        {props.value}
        {props.unit && <small>{props.unit}</small>}
      </span>
      <span class="tile-says">{props.says}</span>
    </a>
  );
}

function Tiles({ stats, types, workers }: { stats: Stats; types: TypesAnswer | null; workers: WorkerInfo[] | null }) {
  const { runs, rates } = stats;
  const [done, doneUnit] = rate((rates.succeeded ?? 0) + (rates.failed ?? 0) + (rates.cancelled ?? 0));
  const [failing, failingUnit] = rate(rates.failed);
  const slots = workers?.reduce((sum, one) => sum + (one.concurrency ?? 0), 0) ?? 0;
  const oldest = oldestDue(stats, types?.types ?? null, types?.pauses ?? null);
  const due = stats.due == null ? null : `${stats.due_is_exact === false ? "≥ " : ""}${count(stats.due)} due`;
  return (
    <div class="tiles">
      <Tile name="finished" value={done} unit={doneUnit} says={`${rate(rates.submitted).join("")} submitted`} to={href("runs")} />
      <Tile name="running" value={count(runs.leased ?? 0)} says={slots ? `of ${count(slots)} slots` : "leased by workers"} to={href("runs", { status: "leased" })} />
      <Tile
        name="pending"
        value={count(runs.pending ?? 0)}
        says={due ?? (runs.waiting ? `${count(runs.waiting)} waiting` : "recorded, not begun")}
        to={href("runs", { status: "pending" })}
      />
      <Tile
        name="oldest due"
        value={oldest == null ? "none" : duration(oldest)}
        says={oldest != null ? "waits for a worker" : stats.oldest_due_seconds == null ? "nothing due waits" : "only paused ones"}
        tone={oldest != null && oldest > 60 ? "is-warning" : ""}
        to={href("runs", { status: "pending" })}
      />
      <Tile
        name="failing"
        value={failing}
        unit={failingUnit}
        says={`${count(runs.failed ?? 0)} failed in all`}
        tone={rates.failed ? "is-error" : ""}
        to={href("runs", { status: "failed" })}
      />
      <Tile
        name="workers"
        value={workers ? count(workers.length) : "–"}
        says={workers ? (workers.length ? `${plural(new Set(workers.map((one) => one.host)).size, "host")}` : "none is running") : "not known"}
        tone={workers && !workers.length && oldest != null ? "is-error" : ""}
        to={href("workers")}
      />
    </div>
  );
}

function Throughput({ stats }: { stats: Stats }) {
  const [times, lines] = useMemo((): [number[], Line[]] => {
    const steps = stats.series.slice(0, -1); // the last is not over: it would look like a fall
    const of = (name: "submitted" | "succeeded" | "failed" | "retried") =>
      steps.map((one) => (one[name] ?? 0) / stats.step_seconds);
    return [
      steps.map((one) => Date.parse(one.at) / 1000),
      [
        { name: "submitted", color: "--soft", dash: [4, 4], values: of("submitted") },
        { name: "succeeded", color: "--good", values: of("succeeded") },
        { name: "retried", color: "--warn", dash: [8, 3], values: of("retried") },
        { name: "failed", color: "--bad", values: of("failed") },
      ],
    ];
  }, [stats]);
  if (!times.length) return null;
  return <Chart label="runs per second over the window" times={times} lines={lines} />;
}
