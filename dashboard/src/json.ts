// JSON as it was sent.  JSON.parse would round numbers beyond 2^53, so texts of the database are never put through it.

/** The text of one JSON value, every digit as it came. */
export class Raw {
  constructor(readonly text: string) {}
}

/** What a user's program wrote: kept as text, to be shown and never to be computed with. */
const KEPT_AS_TEXT = new Set(["payload", "result", "data", "facts"]);

const WORD = /[^\s,\]}:]+/y;

/** Parse an answer of the server: what users wrote stays `Raw`, a number that JavaScript cannot hold stays text. */
export function parse(text: string, keepAsText: ReadonlySet<string> = KEPT_AS_TEXT): any {
  let at = 0;

  const space = () => {
    for (let c = text.charCodeAt(at); c === 32 || c === 10 || c === 13 || c === 9; ) c = text.charCodeAt(++at);
  };
  const string = (): string => {
    const end = endOfString(text, at);
    const inside = text.slice(at + 1, end - 1);
    const value = inside.includes("\\") ? JSON.parse(text.slice(at, end)) : inside;
    at = end;
    return value;
  };
  const many = (close: string, one: () => void) => {
    at++;
    for (space(); text[at] !== close; space()) {
      one();
      space();
      if (text[at] === ",") at++;
      else if (text[at] !== close) throw new SyntaxError(`not JSON at ${at}`);
    }
    at++;
  };
  const value = (): any => {
    space();
    const c = text[at];
    if (c === '"') return string();
    if (c === "[") {
      const found: any[] = [];
      many("]", () => found.push(value()));
      return found;
    }
    if (c === "{") {
      const found: Record<string, any> = Object.create(null);
      many("}", () => {
        const key = string();
        space();
        at++; // the colon
        space();
        const from = at;
        if (keepAsText.has(key)) {
          at = endOfValue(text, at);
          const kept = text.slice(from, at);
          found[key] = kept === "null" ? null : new Raw(kept);
        } else found[key] = value();
      });
      return found;
    }
    WORD.lastIndex = at;
    const word = WORD.exec(text)?.[0];
    if (!word) throw new SyntaxError(`not JSON at ${at}`);
    at += word.length;
    if (word === "true" || word === "false" || word === "null") return JSON.parse(word);
    const number = Number(word);
    if (Number.isNaN(number)) throw new SyntaxError(`not JSON at ${at}`);
    return Number.isInteger(number) && !Number.isSafeInteger(number) ? word : number;
  };

  const found = value();
  space();
  if (at !== text.length) throw new SyntaxError(`not JSON at ${at}`);
  return found;
}

/** Where the string that begins at `at` ends: behind its closing quote. */
function endOfString(text: string, at: number): number {
  for (let i = at + 1; ; ) {
    const quote = text.indexOf('"', i);
    if (quote < 0) throw new SyntaxError(`not JSON: a string without an end at ${at}`);
    let slashes = 0;
    while (text[quote - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return quote + 1;
    i = quote + 1;
  }
}

function endOfValue(text: string, at: number): number {
  let depth = 0;
  for (let i = at; i < text.length; ) {
    const c = text[i]!;
    if (c === '"') i = endOfString(text, i);
    else {
      if (c === "{" || c === "[") depth++;
      else if (c === "}" || c === "]") {
        if (depth === 0) return i;
        depth--;
      } else if (c === "," && depth === 0) return i;
      i++;
    }
    if (depth === 0 && (c === '"' || c === "}" || c === "]")) return i;
  }
  return text.length;
}

/** What may be somebody's secret, by its key. */
const SECRET = /pass(word|wd|phrase)?$|^pwd$|secret|token|api.?key|access.?key|private.?key|credential|authori[sz]ation|cookie|card.?number|^cvv$|^ssn$|^iban$/i;

export interface Piece {
  kind: "plain" | "key" | "string" | "number" | "word" | "secret";
  text: string;
}

/** Lay out JSON text over lines, two spaces a level; values under keys that look secret become pieces of their own. */
export function layOut(text: string): { pieces: Piece[]; lines: number; secrets: number } {
  const pieces: Piece[] = [];
  let depth = 0;
  let lines = 1;
  let secrets = 0;
  const put = (kind: Piece["kind"], piece: string) => {
    const last = pieces[pieces.length - 1];
    if (kind === "plain" && last?.kind === "plain") last.text += piece;
    else pieces.push({ kind, text: piece });
  };
  const newLine = () => {
    lines++;
    put("plain", "\n" + "  ".repeat(depth));
  };
  let isValueNext = false;
  for (let at = 0; at < text.length; ) {
    const c = text[at]!;
    if (c === " " || c === "\n" || c === "\t" || c === "\r") at++;
    else if (c === "{" || c === "[") {
      const close = c === "{" ? "}" : "]";
      const rest = /\s*/y;
      rest.lastIndex = at + 1;
      rest.exec(text);
      if (text[rest.lastIndex] === close) {
        put("plain", c + close);
        at = rest.lastIndex + 1;
      } else {
        put("plain", c);
        depth++;
        newLine();
        at++;
      }
      isValueNext = false;
    } else if (c === "}" || c === "]") {
      depth--;
      newLine();
      put("plain", c);
      at++;
    } else if (c === ",") {
      put("plain", ",");
      newLine();
      at++;
    } else if (c === ":") {
      put("plain", ": ");
      isValueNext = true;
      at++;
    } else if (c === '"') {
      const end = endOfString(text, at);
      const word = text.slice(at, end);
      const colon = /\s*:/y;
      colon.lastIndex = end;
      const isKey = !isValueNext && colon.test(text);
      put(isKey ? "key" : "string", word);
      at = end;
      isValueNext = false;
      if (isKey && SECRET.test(word.slice(1, -1))) {
        const from = colon.lastIndex + (/^\s*/.exec(text.slice(colon.lastIndex, colon.lastIndex + 99))?.[0].length ?? 0);
        const to = endOfValue(text, from);
        // A number under "token" is the fencing token of an event.
        if (word !== '"token"' || !/^\d/.test(text.slice(from, from + 1))) {
          put("plain", ": ");
          put("secret", text.slice(from, to).trim());
          secrets++;
          at = to;
        }
      }
    } else {
      WORD.lastIndex = at;
      const word = WORD.exec(text)?.[0] ?? c;
      put(/^[-\d]/.test(word) ? "number" : "word", word);
      at += word.length;
      isValueNext = false;
    }
  }
  return { pieces, lines, secrets };
}
