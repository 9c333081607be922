// A user's JSON: as text, laid out, with what looks secret covered until it is asked for.
import { useMemo, useState } from "preact/hooks";
import { count } from "./format";
import type { Raw } from "./json";
import { type Piece, layOut } from "./json";
import { Copy } from "./parts";

const LINES_SHOWN = 24;
const CHARACTERS_SHOWN = 3000;
// Beyond it one text node instead of one span a word: a megabyte stays quick.
const PIECES_MAX = 6000;

export function JsonView({ of, what }: { of: Raw; what: string }) {
  const laid = useMemo(() => layOut(of.text), [of.text]);
  const [isWhole, setWhole] = useState(false);
  const [areSecretsSeen, setSeen] = useState(false);
  const isLong = laid.lines > LINES_SHOWN || of.text.length > CHARACTERS_SHOWN;
  const shown = useMemo(() => (isLong && !isWhole ? beginning(laid.pieces) : laid.pieces), [laid, isLong, isWhole]);

  return (
    <div class="json">
      <pre tabIndex={0} aria-label={what} dir="ltr">
        {shown.length > PIECES_MAX
          ? shown.map((one) => (one.kind === "secret" && !areSecretsSeen ? "••••••" : one.text)).join("")
          : shown.map((one, index) =>
              one.kind === "plain" ? (
                one.text
              ) : one.kind === "secret" && !areSecretsSeen ? (
                <span key={index} class="covered" title="covered: its key looks like a secret’s">
                  ••••••
                </span>
              ) : (
                <bdi key={index} class={`j-${one.kind}`}>
                  {one.text}
                </bdi>
              ),
            )}
        {isLong && !isWhole && "\n…"}
      </pre>
      <div class="json-tools">
        {isLong && (
          <button type="button" class="quiet small" aria-expanded={isWhole} onClick={() => setWhole(!isWhole)}>
            {isWhole ? "show less" : `show all ${count(laid.lines)} lines, ${size(of.text.length)}`}
          </button>
        )}
        {laid.secrets > 0 && (
          <button type="button" class="quiet small" aria-pressed={areSecretsSeen} onClick={() => setSeen(!areSecretsSeen)}>
            {areSecretsSeen ? "cover secrets" : `uncover ${laid.secrets === 1 ? "a secret" : `${laid.secrets} secrets`}`}
          </button>
        )}
        <Copy text={of.text} what={what} />
      </div>
    </div>
  );
}

function beginning(pieces: Piece[]): Piece[] {
  const found: Piece[] = [];
  let lines = 1;
  let characters = 0;
  for (const piece of pieces) {
    const left = CHARACTERS_SHOWN - characters;
    const isTooLong = piece.text.length > left;
    found.push(isTooLong ? { ...piece, text: piece.text.slice(0, left) } : piece);
    characters += piece.text.length;
    lines += piece.kind === "plain" ? piece.text.split("\n").length - 1 : 0;
    if (isTooLong || lines >= LINES_SHOWN) break;
  }
  return found;
}

export const size = (characters: number): string =>
  characters < 1000 ? `${characters} characters` : characters < 1e6 ? `${Math.round(characters / 1000)} kB` : `${(characters / 1e6).toFixed(1)} MB`;

/** A traceback or other text: its end tells most, so that is what is seen first. */
export function LongText({ text, what }: { text: string; what: string }) {
  const [isWhole, setWhole] = useState(false);
  const lines = text.split("\n");
  const isLong = lines.length > LINES_SHOWN || text.length > CHARACTERS_SHOWN;
  const shown = isLong && !isWhole ? `…${lines.slice(-LINES_SHOWN).join("\n").slice(-CHARACTERS_SHOWN)}` : text;
  return (
    <div class="json">
      <pre class="error-text" tabIndex={0} aria-label={what}>
        <bdi>{shown}</bdi>
      </pre>
      <div class="json-tools">
        {isLong && (
          <button type="button" class="quiet small" aria-expanded={isWhole} onClick={() => setWhole(!isWhole)}>
            {isWhole ? "show its end" : `show all ${count(lines.length)} lines, ${size(text.length)}`}
          </button>
        )}
        <Copy text={text} what={what} />
      </div>
    </div>
  );
}
