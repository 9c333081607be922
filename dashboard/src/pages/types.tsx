// The types: how each fares, who handles it, and the switch that pauses it.
import { useState } from "preact/hooks";
import { askToPause } from "../actions";
import { Spread } from "../chart";
import { pendingUnder } from "../concerns";
import { ask } from "../dialog";
import { duration, plural, rate } from "../format";
import { useLive } from "../live";
import type { TypesAnswer, TypeSummary } from "../model";
import { Ago, Answer, Choice, type Column, Count, Dotted, Empty, Foreign, None, Page, Shape, Table, WINDOWS } from "../parts";
import { href } from "../router";
import { mayOperate } from "../session";

export function Types() {
  const [seconds, setSeconds] = useState<number>(300);
  const live = useLive<TypesAnswer>(`types?window_seconds=${seconds}`, 3);
  return (
    <Page
      title="Types"
      says="What kinds of runs there are and how they fare. A paused type is recorded but not claimed."
      aside={
        <div class="actions">
          {mayOperate.value && (
            <button type="button" onClick={() => askForPattern(live.again)}>
              Pause a pattern…
            </button>
          )}
          <Choice label="window" options={WINDOWS} value={seconds} choose={setSeconds} />
        </div>
      }
    >
      <Answer live={live} what="its types">
        {(answer) => (
          <>
            <Pauses {...answer} again={live.again} />
            {answer.types.length ? (
              <TypeTable types={answer.types} again={live.again} />
            ) : (
              <Empty title="No types yet.">A type stands here once a worker handles it or a run of it is recorded.</Empty>
            )}
          </>
        )}
      </Answer>
    </Page>
  );
}

/** What is paused, also where no type is covered yet. */
function Pauses({ pauses, types, again }: TypesAnswer & { again: () => void }) {
  if (!pauses.length) return null;
  return (
    <ul class="concerns" aria-label="paused patterns">
      {pauses.map((one) => (
        <li key={one.pattern} class="is-notice">
          <Shape of="waiting" />
          <span>
            <bdi>{one.pattern}</bdi> is paused{one.reason && <>: <bdi>{one.reason}</bdi></>}
            <span class="soft">
              {" "}
              (<Ago at={one.paused_at} /> by <bdi>{one.paused_for ?? one.paused_by}</bdi>; {plural(pendingUnder(one, types), "run")} pending)
            </span>
          </span>
          {mayOperate.value && <Resume pattern={one.pattern} again={again} />}
        </li>
      ))}
    </ul>
  );
}

const Resume = ({ pattern, again }: { pattern: string; again: () => void }) => (
  <button type="button" class="small" aria-label={`resume ${pattern}`} onClick={() => askToPause("resume", pattern, again)}>
    Resume…
  </button>
);

export function TypeTable({ types, isShort, again }: { types: TypeSummary[]; isShort?: boolean; again?: () => void }) {
  const most = Math.max(1, ...types.flatMap((one) => [one.wait?.p99 ?? 0, one.run?.p99 ?? 0]));
  const runs = (one: TypeSummary, status: "pending" | "leased" | "failed", tone?: string) =>
    one.runs[status] ? (
      <a class={tone} href={href("runs", { pattern: one.type, status })}>
        <Count of={one.runs[status]} />
      </a>
    ) : (
      <span class="soft">0</span>
    );
  const columns: Column<TypeSummary>[] = [
    {
      name: "type",
      class: "main",
      cell: (one) => (
        <>
          <a class="row-link type" href={href("runs", { pattern: one.type })}>
            <Dotted name={one.type} />
          </a>
          {!one.is_enabled && (
            <div>
              <span class="tag">
                <Shape of="waiting" /> paused{one.disabled_by && one.disabled_by !== one.type ? ` by ${one.disabled_by}` : ""}
              </span>
            </div>
          )}
          {!isShort && (
            <div class="soft">
              {one.handled_by === null ? "no worker has ever handled it" : <Foreign text={handledBy(one)} />}
            </div>
          )}
        </>
      ),
    },
    { name: "pending", isNumber: true, cell: (one) => runs(one, "pending") },
    {
      name: "oldest due",
      isNumber: true,
      cell: (one) =>
        one.oldest_due_seconds == null ? (
          <None />
        ) : (
          <span class={one.is_enabled && one.oldest_due_seconds > 60 ? "tone-warning" : ""}>{duration(one.oldest_due_seconds)}</span>
        ),
    },
    { name: "running", isNumber: true, cell: (one) => runs(one, "leased") },
    { name: "succeeds", isNumber: true, cell: (one) => rate(one.rates.succeeded).join("") },
    ...(isShort
      ? []
      : [
          { name: "success", isNumber: true, cell: success },
        ]),
    { name: "failed", isNumber: true, cell: (one) => runs(one, "failed", "tone-failed") },
    { name: "wait  p50 · p95", class: "spread-cell", cell: (one) => <Spread of={one.wait} most={most} what="waits" /> },
    { name: "run  p50 · p95", class: "spread-cell", cell: (one) => <Spread of={one.run} most={most} what="runs" /> },
    ...(isShort || !again || !mayOperate.value
      ? []
      : [
          {
            name: "",
            class: "does",
            cell: (one: TypeSummary) =>
              one.is_enabled ? (
                <button type="button" class="quiet small" aria-label={`pause ${one.type}`} onClick={() => askToPause("pause", one.type, again)}>
                  Pause…
                </button>
              ) : (
                <Resume pattern={one.disabled_by ?? one.type} again={again} />
              ),
          },
        ]),
  ];
  return <Table label="types" columns={columns} rows={types} keyOf={(one) => one.type} />;
}

function handledBy(one: TypeSummary): string {
  const by = one.handled_by && one.handled_by !== one.type ? `handled as ${one.handled_by}` : "";
  return [by, one.runtime, one.description].filter(Boolean).join(", ");
}

function success(one: TypeSummary) {
  const well = one.rates.succeeded ?? 0;
  const all = well + (one.rates.failed ?? 0);
  const percent = (100 * well) / all;
  return (
    <>
      {all ? (
        <span class={percent < 99 ? "tone-failed" : ""}>{percent === 100 ? "100" : percent.toFixed(1)} %</span>
      ) : (
        <None />
      )}
      {!!one.rates.retried && <div class="soft" title="retried">↻ {rate(one.rates.retried).join("")}</div>}
    </>
  );
}

function askForPattern(changed: () => void): void {
  ask({
    title: "Pause which pattern?",
    says: "A type, or a prefix that ends in %: billing.% covers all of billing.",
    fields: (
      <label class="field">
        Pattern
        <input name="pattern" required maxLength={200} autoComplete="off" spellcheck={false} pattern="%|[A-Za-z0-9_.\-]+%?" />
      </label>
    ),
    does: "Go on",
    act: async (form) => {
      const pattern = String(form.get("pattern"));
      setTimeout(() => askToPause("pause", pattern, changed)); // after this one has closed
      return null;
    },
  });
}
