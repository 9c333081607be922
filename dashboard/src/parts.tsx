// The small parts that every page is made of.
import { type ComponentChildren, Fragment } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Problem } from "./api";
import { distance, exact, count, moment, shortId } from "./format";
import { type Live, now } from "./live";
import { MEANINGS, type Status } from "./model";
import { href } from "./router";

/** Shapes tell the statuses apart for those to whom the colours look alike. */
const SHAPES: Record<string, ComponentChildren> = {
  pending: <circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="1.6" />,
  leased: <path d="M3 1.8v8.4L10.4 6z" fill="currentColor" />,
  waiting: <path d="M2.9 2v8M9.1 2v8" stroke="currentColor" stroke-width="2.4" />,
  succeeded: <path d="m1.8 6.4 2.8 2.9 5.6-6.4" fill="none" stroke="currentColor" stroke-width="2" />,
  failed: <path d="m2.2 2.2 7.6 7.6m0-7.6-7.6 7.6" stroke="currentColor" stroke-width="2.2" />,
  cancelled: (
    <g fill="none" stroke="currentColor" stroke-width="1.6">
      <circle cx="6" cy="6" r="4.4" />
      <path d="m3 9 6-6" />
    </g>
  ),
  warning: <path d="M6 1.2 11.4 10.6H.6z" fill="none" stroke="currentColor" stroke-width="1.6" />,
  notice: <path d="M6 5v5M6 1.6v1.8" stroke="currentColor" stroke-width="2" />,
};

export const Shape = ({ of }: { of: string }) => (
  <svg class={`shape tone-${of}`} viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
    {SHAPES[of] ?? SHAPES.notice}
  </svg>
);

export const StatusMark = ({ status }: { status: Status }) => (
  <span class={`status tone-${status}`} title={MEANINGS[status]}>
    <Shape of={status} />
    {status}
  </span>
);

/** A relative time that moves; the exact one on hover and for who listens. */
export function Ago({ at }: { at: string | null | undefined }) {
  if (!at) return <Fragment>–</Fragment>;
  const seconds = (now.value - Date.parse(at)) / 1000;
  return (
    <time dateTime={at} title={moment(at)}>
      {Number.isNaN(seconds) ? at : distance(Math.abs(seconds) < 1.5 ? 0 : seconds)}
    </time>
  );
}

/** What somebody else wrote, kept from turning the text around it. */
export const Foreign = ({ text, class: name }: { text: string; class?: string }) => (
  <bdi class={name ?? "foreign"}>{text}</bdi>
);

export const Count = ({ of }: { of: number | string | null | undefined }) => (
  <span class="number" title={of == null ? undefined : exact(of)}>
    {count(of)}
  </span>
);

/** What is not there; the small screen leaves it out. */
export const None = () => <span class="soft none">–</span>;

/** A dotted name that, where it must be broken, breaks after a dot. */
export const Dotted = ({ name }: { name: string }) => (
  <bdi>
    {name.split(/(?<=\.)/).map((part, index) => (
      <Fragment key={index}>
        {index > 0 && <wbr />}
        {part}
      </Fragment>
    ))}
  </bdi>
);

export const RunLink = ({ id, whole }: { id: string; whole?: boolean }) => (
  <a class="mono" href={href(`runs/${id}`)} title={id}>
    {whole ? id : shortId(id)}
  </a>
);

export function Copy({ text, what }: { text: string; what: string }) {
  const [copied, set] = useState(false);
  useEffect(() => {
    const timer = copied ? setTimeout(() => set(false), 1500) : undefined;
    return () => clearTimeout(timer);
  }, [copied]);
  if (!navigator.clipboard) return null; // only where the page is secure
  return (
    <button
      type="button"
      class="quiet small"
      aria-label={`copy ${what}`}
      onClick={() => void navigator.clipboard.writeText(text).then(() => set(true), () => {})}
    >
      {copied ? "copied" : "copy"}
    </button>
  );
}

export function Page(props: { title: string; says: ComponentChildren; aside?: ComponentChildren; children: ComponentChildren }) {
  return (
    <Fragment>
      <header class="page-head">
        <div>
          <h1 tabIndex={-1}>{props.title}</h1>
          <p class="says">{props.says}</p>
        </div>
        {props.aside && <div class="page-aside">{props.aside}</div>}
      </header>
      {props.children}
    </Fragment>
  );
}

export const Empty = ({ title, children }: { title: string; children?: ComponentChildren }) => (
  <div class="empty">
    <strong>{title}</strong>
    {children && <p>{children}</p>}
  </div>
);

/** One clear line and its remedy; `again` where it may help. */
export function ProblemNote({ problem, again }: { problem: Problem; again?: () => void }) {
  if (problem.code === "disconnected") return null; // the banner says it, once for all
  return (
    <div class="problem" role="alert">
      <Shape of="failed" />
      <div>
        <strong>{problem.message}</strong>
        {problem.hint && <p>{problem.hint}</p>}
        {problem.status === 403 && <p>Your key’s role may not do this; ask for one that may.</p>}
      </div>
      {again && (
        <button type="button" class="quiet" onClick={again}>
          try again
        </button>
      )}
    </div>
  );
}

/** The answer once there is one; before, after a moment, grey lines; a problem above what is known already. */
export function Answer<T>({ live, what, children }: { live: Live<T>; what: string; children: (answer: T) => ComponentChildren }) {
  return (
    <Fragment>
      {live.problem && <ProblemNote problem={live.problem} again={live.again} />}
      {live.answer !== null ? children(live.answer) : live.problem ? null : <Loading what={what} />}
    </Fragment>
  );
}

/** Nothing for the first 0.3 s (by the style sheet), so that quick answers do not flicker. */
export const Loading = ({ what }: { what: string }) => (
  <div class="loading" role="status">
    <span class="unseen">loading {what}</span>
    <i />
    <i />
    <i />
  </div>
);

export interface Column<T> {
  name: string;
  isNumber?: boolean;
  cell: (row: T) => ComponentChildren;
  class?: string;
}

/** A table that becomes a list of cards where there is no room for columns. */
export function Table<T>(props: {
  label: string;
  columns: Column<T>[];
  rows: readonly T[];
  keyOf: (row: T) => string;
  selected?: { has: (row: T) => boolean; toggle: (row: T) => void; all: () => void; isAll: boolean };
}) {
  const { columns, rows, keyOf, selected } = props;
  const nameOf = (c: Column<T>) =>
    [c.isNumber ? "num" : "", c.class ?? ""].filter(Boolean).join(" ") || undefined;
  return (
    <div class="table-frame">
      <table aria-label={props.label}>
        <thead>
          <tr>
            {selected && (
              <th class="pick">
                <input type="checkbox" aria-label="select all that are shown" checked={selected.isAll} onChange={selected.all} />
              </th>
            )}
            {columns.map((c) => (
              <th key={c.name} class={nameOf(c)} scope="col">
                {c.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={keyOf(row)} aria-selected={selected ? selected.has(row) : undefined}>
              {selected && (
                <td class="pick">
                  <input
                    type="checkbox"
                    aria-label={`select ${keyOf(row)}`}
                    checked={selected.has(row)}
                    onChange={() => selected.toggle(row)}
                  />
                </td>
              )}
              {columns.map((c) => (
                <td key={c.name} class={nameOf(c)} data-name={c.name}>
                  {c.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Choice<T extends string | number>(props: {
  label: string;
  options: readonly (readonly [T, string])[];
  value: T;
  choose: (value: T) => void;
}) {
  return (
    <div class="choice" role="group" aria-label={props.label}>
      {props.options.map(([value, word]) => (
        <button key={value} type="button" aria-pressed={value === props.value} onClick={() => props.choose(value)}>
          {word}
        </button>
      ))}
    </div>
  );
}

export const WINDOWS = [
  [300, "5 min"],
  [3600, "1 h"],
  [86_400, "24 h"],
] as const;
