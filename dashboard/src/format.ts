// How numbers and lengths of time read.

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const exact = (n: number | string): string => (typeof n === "number" ? whole.format(n) : n);

/** 950, 9,500, 95.2K: five characters at most or so. */
export const count = (n: number | string | null | undefined): string =>
  n == null ? "–" : typeof n !== "number" ? n : Math.abs(n) < 100_000 ? whole.format(n) : compact.format(n);

/** Per second, as many digits as tell something; slow ones per minute or hour. */
export function rate(perSecond: number | null | undefined): [string, string] {
  if (perSecond == null) return ["–", "/s"];
  if (perSecond === 0) return ["0", "/s"];
  if (perSecond >= 100) return [count(Math.round(perSecond)), "/s"];
  if (perSecond >= 0.95) return [perSecond.toFixed(1), "/s"];
  if (perSecond * 60 >= 0.95) return [(perSecond * 60).toFixed(perSecond * 60 < 9.95 ? 1 : 0), "/min"];
  return [(perSecond * 3600).toFixed(perSecond * 3600 < 9.95 ? 1 : 0), "/h"];
}

/** 0.4 ms, 40 ms, 4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null) return "–";
  const s = Math.abs(seconds);
  const sign = seconds < 0 ? "−" : "";
  const two = (big: number, bigName: string, small: number, smallName: string) =>
    `${sign}${big} ${bigName}${small ? ` ${small} ${smallName}` : ""}`;
  if (s === 0) return "0 s";
  if (s < 0.01) return `${sign}${(s * 1000).toFixed(1)} ms`;
  if (s < 0.9995) return `${sign}${Math.round(s * 1000)} ms`;
  if (s < 9.95) return `${sign}${s.toFixed(1)} s`;
  if (s < 59.5) return `${sign}${Math.round(s)} s`;
  if (s < 3599.5) return two(Math.floor(Math.round(s) / 60), "min", Math.round(s) % 60, "s");
  const minutes = Math.round(s / 60);
  if (minutes < 1440) return two(Math.floor(minutes / 60), "h", minutes % 60, "min");
  const hours = Math.round(s / 3600);
  return two(Math.floor(hours / 24), "d", hours < 240 ? hours % 24 : 0, "h");
}

/** How long ago or until, coarse enough not to flicker. */
export function distance(seconds: number): string {
  const s = Math.abs(seconds);
  const words =
    s < 1 ? "now"
    : s < 60 ? `${Math.floor(s)} s`
    : s < 7200 ? `${Math.floor(s / 60)} min`
    : s < 172_800 ? `${Math.floor(s / 3600)} h`
    : `${Math.floor(s / 86_400)} d`;
  return words === "now" ? words : seconds < 0 ? `in ${words}` : `${words} ago`;
}

const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** The exact time, in the reader's zone and in UTC as it was sent. */
export function moment(at: string): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? at : `${day.format(date)}, ${time.format(date)} local\n${at}`;
}

/** The time of the day with its milliseconds, in the reader's zone. */
export function clock(at: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return at;
  return `${time.format(date)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** What tells one id from its neighbours; version 7 ids of one minute begin alike, so it is the end. */
export const shortId = (id: string): string => `…${id.slice(-8)}`;

export const firstLine = (text: string): string => text.trimStart().split(/\r?\n/, 1)[0]!.slice(0, 300);

/** The line of a traceback that says what was wrong: the last one that is no indentation. */
export function errorLine(text: string): string {
  if (!/^Traceback/m.test(text)) return firstLine(text);
  const lines = text.trimEnd().split(/\r?\n/).filter((line) => /^\S/.test(line));
  return (lines[lines.length - 1] ?? text).slice(0, 300);
}

export const plural = (n: number, one: string, many = `${one}s`): string => `${count(n)} ${n === 1 ? one : many}`;
