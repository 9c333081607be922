// The runs, newest first: filters in the address, live, some or all of them to be changed.
import { signal } from "@preact/signals";
import { useEffect, useMemo, useState } from "preact/hooks";
import { CAN_CANCEL, CAN_REOPEN, askToChange, askToOperate, explained } from "../actions";
import { tell } from "../dialog";
import { count, duration, errorLine, plural } from "../format";
import { now, useLive } from "../live";
import { type Run, type RunPage, STATUSES, type Status, type TypeSummary, type TypesAnswer } from "../model";
import { Ago, Answer, type Column, Empty, Foreign, Page, Shape, StatusMark, Table } from "../parts";
import { type Query, asText, href, place, replaceQuery } from "../router";
import { mayOperate } from "../session";

const LIMIT = 50;
const PERIODS = [
  ["", "any time"],
  ["300", "last 5 min"],
  ["3600", "last hour"],
  ["86400", "last day"],
  ["604800", "last week"],
  ["custom", "between…"],
] as const;

const chosen = signal<ReadonlyMap<string, Run>>(new Map());

interface Filters {
  pattern: string[];
  status: string[];
  worker: string;
  key: string;
  payload: string;
  last: string;
  from: string;
  before: string;
  page: string;
}

const filtersOf = (query: URLSearchParams): Filters => ({
  pattern: query.getAll("pattern"),
  status: query.getAll("status"),
  worker: query.get("worker") ?? "",
  key: query.get("key") ?? "",
  payload: query.get("payload") ?? "",
  last: query.get("last") ?? "",
  from: query.get("from") ?? "",
  before: query.get("before") ?? "",
  page: query.get("page") ?? "",
});

export function Runs() {
  const filters = filtersOf(place.value.query);
  const [period, setPeriod] = useState(filters.from || filters.before ? "custom" : filters.last);
  const key = asText({ ...filters });
  // Counted back from the moment the filter was set, so that the question stays the same while it is asked again.
  const [from, before] = useMemo(() => periodOf(filters), [key]);
  const path = `runs?${asText({
    pattern: filters.pattern,
    status: filters.status,
    worker: filters.worker,
    key: filters.key,
    payload: containedIn(filters.payload),
    created_from: from,
    created_before: before,
    page: filters.page,
    limit: LIMIT,
  })}`;
  const live = useLive<RunPage>(path, filters.page ? 5 : 2);
  const types = useLive<TypesAnswer>("types?window_seconds=300", 30);
  const change = (changes: Partial<Filters>) => {
    chosen.value = new Map();
    replaceQuery({ ...filters, page: "", ...changes } as unknown as Query);
  };
  useEffect(() => () => void (chosen.value = new Map()), []);
  const isFiltered = !!asText({ ...filters, page: "" });

  return (
    <Page title="Runs" says="Every run is one row: newest first. Filters are kept in the address, so it can be shared.">
      <form class="filters" onSubmit={(event) => event.preventDefault()} aria-label="filters">
        <div class="chips" role="group" aria-label="status">
          {STATUSES.map((status) => (
            <button
              key={status}
              type="button"
              class={`chip tone-${status}`}
              aria-pressed={filters.status.includes(status)}
              onClick={() =>
                change({
                  status: filters.status.includes(status)
                    ? filters.status.filter((one) => one !== status)
                    : [...filters.status, status],
                })
              }
            >
              <Shape of={status} />
              {status}
            </button>
          ))}
        </div>
        <TextFilter
          label="type or prefix%"
          value={filters.pattern.join(" ")}
          hotkey="/"
          list={completions(types.answer?.types ?? [])}
          change={(text) => change({ pattern: text.split(/[\s,]+/).filter(Boolean) })}
        />
        <TextFilter label="worker" value={filters.worker} change={(worker) => change({ worker: worker.trim() })} />
        <TextFilter label="idempotency key" value={filters.key} change={(text) => change({ key: text })} />
        {mayOperate.value && (
          <TextFilter
            label="payload"
            value={filters.payload}
            placeholder="customer.id=42"
            title="A path and its value; or JSON that the payload contains"
            change={(text) => change({ payload: text.trim() })}
          />
        )}
        <label class="filter">
          <span>created</span>
          <select
            value={period}
            onChange={(event) => {
              const value = event.currentTarget.value;
              setPeriod(value);
              change(value === "custom" ? { last: "" } : { last: value, from: "", before: "" });
            }}
          >
            {PERIODS.map(([value, word]) => (
              <option key={value} value={value}>
                {word}
              </option>
            ))}
          </select>
        </label>
        {period === "custom" && (
          <>
            <TimeFilter label="from" value={filters.from} change={(value) => change({ from: value })} />
            <TimeFilter label="before" value={filters.before} change={(value) => change({ before: value })} />
          </>
        )}
        {isFiltered && (
          <button
            type="button"
            class="quiet"
            onClick={() => {
              setPeriod("");
              change({ pattern: [], status: [], worker: "", key: "", payload: "", last: "", from: "", before: "" });
            }}
          >
            clear
          </button>
        )}
      </form>

      <Answer live={live} what="runs">
        {(answer) => (
          <>
            <Bulk runs={answer.runs} filters={filters} from={from} before={before} again={live.again} />
            {answer.runs.length ? (
              <RunTable runs={answer.runs} isPickable={mayOperate.value} />
            ) : answer.next_page ? null : isFiltered ? (
              <Empty title="No run matches.">Take a filter away, or look at another time.</Empty>
            ) : (
              <Empty title="No runs yet.">
                Submit one: <code>wf submit billing.invoice.v1 '{"{}"}'</code>, or insert a row into <code>workflow_run</code>.
              </Empty>
            )}
            <nav class="pager" aria-label="pages">
              {filters.page && <a href={href("runs", { ...filters, page: "" } as unknown as Query)}>newest</a>}
              {answer.next_page && (
                <a href={href("runs", { ...filters, page: answer.next_page } as unknown as Query)} rel="next">
                  {answer.runs.length < LIMIT ? "look further back" : "older"}
                </a>
              )}
              {answer.next_page && answer.runs.length < LIMIT && (
                <span class="soft">
                  {`found among ${plural(answer.looked_at, "run")}`}
                  {answer.looked_back_to && (
                    <>
                      , back to <Ago at={answer.looked_back_to} />
                    </>
                  )}
                </span>
              )}
            </nav>
          </>
        )}
      </Answer>
    </Page>
  );
}

/** How long it took, runs or waits: the one length of time that matters for its status. */
function took(run: Run) {
  const seconds = (from: string, to: number) => duration(Math.max(0, (to - Date.parse(from)) / 1000));
  if (run.finished_at) return <span title="from its recording to its end">{seconds(run.created_at, Date.parse(run.finished_at))}</span>;
  if (run.status === "leased") return <span title="since it was claimed">{seconds(run.updated_at, now.value)}</span>;
  return null;
}

const columns: Column<Run>[] = [
  { name: "status", cell: (run) => <StatusMark status={run.status} /> },
  {
    name: "run",
    class: "main",
    cell: (run) => (
      <a class="row-link" href={href(`runs/${run.id}`)} title={run.id}>
        <span class="type">{run.type}</span> <span class="mono soft">…{run.id.slice(-8)}</span>
      </a>
    ),
  },
  {
    name: "what",
    class: "what",
    cell: (run) =>
      run.last_error && run.status !== "succeeded" ? (
        <Foreign class="clip error-text" text={errorLine(run.last_error)} />
      ) : run.status === "leased" && run.leased_by ? (
        <span class="clip soft">
          by <Foreign text={run.leased_by} />
        </span>
      ) : run.status === "pending" && Date.parse(run.run_at) > now.value ? (
        <span class="soft">
          due <Ago at={run.run_at} />
        </span>
      ) : run.idempotency_key ? (
        <span class="clip soft">
          key <Foreign text={run.idempotency_key} />
        </span>
      ) : null,
  },
  {
    name: "attempt",
    isNumber: true,
    cell: (run) => (
      <span class={run.attempt > 1 ? "" : "soft"}>
        {run.attempt}/{run.max_attempts}
      </span>
    ),
  },
  { name: "created", isNumber: true, cell: (run) => <Ago at={run.created_at} /> },
  { name: "took", isNumber: true, cell: (run) => took(run) },
];

export function RunTable({ runs, isPickable }: { runs: Run[]; isPickable?: boolean }) {
  const all = runs.length > 0 && runs.every((run) => chosen.value.has(run.id));
  return (
    <Table
      label="runs"
      columns={columns}
      rows={runs}
      keyOf={(run) => run.id}
      selected={
        isPickable
          ? {
              has: (run) => chosen.value.has(run.id),
              toggle: (run) => {
                const next = new Map(chosen.value);
                if (!next.delete(run.id)) next.set(run.id, run);
                chosen.value = next;
              },
              all: () => (chosen.value = all ? new Map() : new Map(runs.map((run) => [run.id, run]))),
              isAll: all,
            }
          : undefined
      }
    />
  );
}

function Bulk(props: { runs: Run[]; filters: Filters; from: string | null; before: string | null; again: () => void }) {
  const { runs, filters, again } = props;
  if (!mayOperate.value) return null;
  const shown = new Map(runs.map((run) => [run.id, run]));
  const picked = [...chosen.value.values()].map((run) => shown.get(run.id) ?? run);
  const done = () => {
    chosen.value = new Map();
    again();
  };
  if (picked.length) {
    const kinds = [
      ["cancel", picked.filter((run) => CAN_CANCEL.includes(run.status))],
      ["reopen", picked.filter((run) => CAN_REOPEN.includes(run.status))],
    ] as const;
    return (
      <div class="bulk is-active" role="region" aria-label="selected runs">
        <strong>{plural(picked.length, "run")} selected</strong>
        {kinds.map(
          ([kind, some]) =>
            some.length > 0 && (
              <button key={kind} type="button" onClick={() => askToChange(kind, some, done)}>
                {kind === "cancel" ? "Cancel" : "Reopen"} {count(some.length)}…
              </button>
            ),
        )}
        <button type="button" class="quiet" onClick={() => (chosen.value = new Map())}>
          select none
        </button>
      </div>
    );
  }
  if (!runs.length) return null;
  const can = (statuses: readonly Status[]) =>
    !filters.status.length || filters.status.some((one) => (statuses as readonly string[]).includes(one));
  const isBeyond = !!(filters.worker || filters.key || filters.payload);
  const operate = (kind: "cancel" | "reopen") =>
    askToOperate(kind, {
      pattern: filters.pattern.length ? filters.pattern : ["%"],
      status: filters.status,
      created_from: props.from,
      created_before: props.before,
    }).catch((error: unknown) => tell(explained(error)));
  return (
    <div class="bulk">
      <span class="soft">all that match</span>
      {(["cancel", "reopen"] as const).map(
        (kind) =>
          can(kind === "cancel" ? CAN_CANCEL : CAN_REOPEN) && (
            <button
              key={kind}
              type="button"
              class="quiet"
              disabled={isBeyond}
              title={isBeyond ? "operations know types, statuses and times; take the other filters away" : undefined}
              onClick={() => void operate(kind)}
            >
              {kind === "cancel" ? "Cancel all…" : "Reopen all…"}
            </button>
          ),
      )}
    </div>
  );
}

function TextFilter(props: {
  label: string;
  value: string;
  change: (text: string) => void;
  list?: string[];
  hotkey?: string;
  placeholder?: string;
  title?: string;
}) {
  const [text, setText] = useState(props.value);
  useEffect(() => setText(props.value), [props.value]);
  const commit = (value: string) => value.trim() !== props.value && props.change(value);
  const id = `list-${props.label.replace(/\W+/g, "-")}`;
  return (
    <label class="filter">
      <span>{props.label}</span>
      <input
        value={text}
        size={Math.min(40, Math.max(14, text.length + 2))}
        list={props.list ? id : undefined}
        data-hotkey={props.hotkey}
        placeholder={props.placeholder}
        title={props.title}
        autoComplete="off"
        autoCapitalize="off"
        spellcheck={false}
        onInput={(event) => {
          setText(event.currentTarget.value);
          if (props.list?.includes(event.currentTarget.value)) commit(event.currentTarget.value);
        }}
        onChange={(event) => commit(event.currentTarget.value)}
      />
      {props.list && (
        <datalist id={id}>
          {props.list.map((one) => (
            <option key={one} value={one} />
          ))}
        </datalist>
      )}
    </label>
  );
}

const TimeFilter = (props: { label: string; value: string; change: (value: string) => void }) => (
  <label class="filter">
    <span>{props.label}</span>
    <input type="datetime-local" step="1" value={props.value} onChange={(event) => props.change(event.currentTarget.value)} />
  </label>
);

/** Every type, and every prefix that covers more than one. */
function completions(types: TypeSummary[]): string[] {
  const prefixes = new Map<string, number>();
  for (const { type } of types) {
    const words = type.replace(/%$/, "").split(".");
    for (let n = 1; n < words.length; n++) {
      const prefix = `${words.slice(0, n).join(".")}.%`;
      prefixes.set(prefix, (prefixes.get(prefix) ?? 0) + 1);
    }
  }
  const many = [...prefixes].filter(([, n]) => n > 1).map(([prefix]) => prefix);
  return [...new Set([...many, ...types.map((one) => one.type)])].sort().slice(0, 500);
}

/** The JSON that a payload is to contain: written as it is, or as a path and its value, customer.id=42. */
function containedIn(text: string): string {
  const [, path, value] = /^([^={["]+)=(.*)$/s.exec(text) ?? [];
  if (path === undefined || value === undefined) return text;
  return path
    .trim()
    .split(".")
    .reduceRight((inner, name) => `{${JSON.stringify(name)}:${inner}}`, isJson(value) ? value : JSON.stringify(value));
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function periodOf(filters: Filters): [string | null, string | null] {
  const asUtc = (local: string) => {
    const date = new Date(local);
    return local && !Number.isNaN(date.getTime()) ? date.toISOString() : null;
  };
  const seconds = Number(filters.last);
  if (seconds > 0) return [new Date(now.peek() - seconds * 1000).toISOString(), null];
  return [asUtc(filters.from), asUtc(filters.before)];
}
