"""Drafts a recordings.toml from the names of files, and from what the columns of all of them hold.

What follows from neither is left open with a `#`, and what is left out is told; the owner has to check the draft.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfkfin.base.console import shown
from tfkfin.base.errors import InputError
from tfkfin.base.quoted import toml
from tfkfin.recordings import checks, doubts, formats, health
from tfkfin.recordings.doubts import MOST, Look
from tfkfin.recordings.sheet import DAYS, RESTS, UNITS, plain

_FIELDS = {  # words that precede a number in a file name
    "subject": r"(s|sub|subj|subject|p|par|participant|person|patient|user|id)",
    "session": r"(s|ses|sess|session|day|d|week|visit)",
    "repetition": r"(rep|repetition|t|trial|r|try)",
    "run": r"(run|block|part|set)",
    "label": r"(m|mov|move|movement|g|gesture|c|class|label|motion|task)",
}
_LABEL = r"(?i).*(label|class|gesture|move|motion|stimulus|target|posture|activity|marker|trigger|event|cue).*|y"
_REPETITION = r"(?i).*(rep|trial).*"
_TIME = r"(?i)t|time|timestamp|sec|seconds|(time|t)[ _,]?(stamp)?[ _,]*[\[(]?(s|sec|ms|us|µs|ns|milli|micro|nano).*|" \
    r".*[\[(](s|sec|ms|us|µs|ns)[\])]"
_OTHER = r"(?i)(.*[^a-z])?(acc|accel\w*|gyro\w*|mag|quat\w*|imu|temp\w*|battery|force|torque|angle|glove|ecg|eeg|" \
    r"index|count\w*)([^a-z].*)?"
_MOVES = r"(?i)fist|open|clos|grip|grasp|flex|exten|pinch|hand|wrist|finger|thumb|point|pron|supin|rest|relax"
_LABELS_OF = r"(?i)label|annot|event|marker|target"
_DATE = r"(?:\d{4}[-._]\d\d[-._]\d\d|\d\d[-.]\d\d[-.](?:\d{4}|\d\d)|(?:19|20)\d{6})"
_HOUR = r"\d\d[-.:h_]?\d\d(?:[-.:m_]?\d\d)?"
_STAMP = re.compile(rf"(?<!\d)(?:{_DATE}(?:[-_T ]?{_HOUR})?|{_HOUR}[-_ ]{_DATE})(?!\d)")


def _toml(value: Any) -> str:
    """A number, a text or a list of these."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return toml(value) if isinstance(value, str) else str(value)


class Names(NamedTuple):
    """What the names of files tell: their pattern, the words in {label}, remarks, and fields without a word before."""

    pattern: str
    words: list[str]
    remarks: list[str]
    guessed: list[str]


class Seen(NamedTuple):
    """What all files hold."""

    looks: dict[int | str, Look]  # of columns, or columns of arrays: "emg:3"
    widths: dict[str, int]  # columns of every array that has several
    clocks: dict[int | str, list[doubts.Clock | None]]
    several: set[int | str]  # columns of which some file holds more than one value beside rest
    rates: set[float]
    units: set[str]
    marks: Counter  # texts of annotations, with whether they last, or never can
    remarks: list[str]


def draft(folder: Path, paths: Sequence[Path]) -> str:
    """The text of a drafted recordings.toml.

    Args:
        folder: the recordings'.
        paths: the files below it, all of which are read.

    Raises:
        InputError: no file has a known format, or none can be read, or they hold windows.
    """
    known = [path for path in paths if path.suffix.lower().lstrip(".") in formats.suffixes()]
    if not known:
        raise InputError(f"{folder} holds no files of a known kind: {', '.join(formats.suffixes())}")
    labels = [path for path in known if re.search(_LABELS_OF, path.stem)]
    signals = [path for path in known if path not in labels] or labels
    labels = [] if signals == labels else labels
    seen = _seen(signals)
    settings, words, label = _columns(seen, labels)
    names = _names(folder, signals, label)
    if label in seen.looks and not seen.looks[label].changes:  # a movement a file, which names may say, too
        other = _names(folder, signals, None)
        names, label = (other, None) if "{label}" in other.pattern else (names, label)
    if label is None and "{label}" in names.pattern:
        words = names.words
        settings = [line for line in settings if not line.startswith(("label", "# label", "# hold"))]
        if any(plain(word) == "0" for word in words):
            settings.append("# rest = false   # label 0 in names is taken for rest: is it a movement?")
    pattern = names.pattern
    if label in seen.looks and "session" in names.guessed and label not in seen.several and "{run}" not in pattern and (
            len(_moved(seen.looks[label])) > 1):
        pattern = pattern.replace("{session}", "{run}")  # files of one movement each are no sessions
    lines = [f"files = {_toml(pattern)}   # {{subject}} {{session}} {{run}} {{label}} {{repetition}} stand for "
             "numbers, * for anything", *names.remarks, *seen.remarks]
    if labels:
        lines += [f"labels = {_toml(_names(folder, labels, label).pattern)}"]
    moved = sorted({plain(word): word for word in words if plain(word) not in RESTS and not re.fullmatch(
        r"[\d.]+", word)}.values())
    if moved and len(moved) == len({plain(word) for word in words}) and (names.words or label is not None):
        settings.append('# rest = "?"   # none of these names is known for rest: is one?')
    table = ["", "[movements]", *(f"{i + 1} = {_toml(name)}" for i, name in enumerate(moved))] if moved else []
    lines = [f"# A draft from all {len(signals)} files: read it through, correct it, then: python -m "
             f"tfkfin.data info {folder}", *settings, *lines, *table]
    text = "\n".join(shown(line).replace("\n", " ") for line in lines) + "\n"
    tomllib.loads(text)
    return text


def _seen(paths: Sequence[Path]) -> Seen:
    """Reads all files."""
    every: dict[tuple, list[Path]] = {}
    looks, clocks, widths, several, failed = {}, {}, {}, set(), []
    rates, units, marks = set(), set(), Counter()
    for path in paths:
        try:
            names = formats.of(path).names(path)
            table = formats.read(path, None if path.suffix.lower() in (".edf", ".bdf", ".xdf") else names)
        except InputError as error:
            failed.append(error)
            continue
        scalars = {name: v for name, v in table.columns.items() if v.size == 1}
        rates |= {float(v.reshape(-1)[0]) for name, v in scalars.items() if v.dtype.kind in "iuf" and re.fullmatch(
            r"(?i)fs|srate|freq(uency)?|(sampling|sample)[ _]?(rate|freq\w*)|rate(_hz)?", str(name))}
        rates |= {table.rate_hz} - {None}
        units |= {one for of in table.units.values() for one in ([of] if isinstance(of, str) else of)}
        marks.update((event.text, event.stop_s > event.start_s, bool(event.stream)) for event in table.events)
        for values in (values for values in table.columns.values() if values.ndim > 2):
            checks.shape(path, values.shape)
        every.setdefault((path.suffix, *(name for name in table.columns if name not in scalars)), []).append(path)
        for name, values in table.columns.items():
            if name in scalars or not values.size:
                continue
            wide = values.ndim == 2 and values.shape[1] > 1
            if wide:
                widths[str(name)] = max(values.shape[1], widths.get(str(name), 0))
            elif values.dtype.kind in "biuf":
                clocks.setdefault(name, []).append(doubts.clock(values, name))
            for c in range(values.shape[1] if wide else 1):
                one = doubts.look(values[:, c] if wide else values.reshape(-1))
                own = f"{name}:{c + 1}" if wide else name
                looks.setdefault(own, []).append(one)
                several |= {own} if len(_moved(one)) > 1 else set()
    if not looks:
        raise failed[0] if failed else InputError(f"{paths[0]} holds no columns")
    remarks = [f"# {len(failed)} files cannot be read: {failed[0]}"] if failed else []
    most, *others = sorted(every, key=lambda names: len(every[names]), reverse=True)
    remarks += [f"# {len(every[few])} files have other columns than most: {every[few][0]}" for few in others]
    usual = set(most)
    looks = {name: doubts.together(of) for name, of in looks.items() if str(name).rpartition(":")[0] in usual
             or name in usual}
    return Seen(looks, widths, clocks, several, rates, units, marks, remarks)


def _moved(look: Look) -> set:
    """The values of a column of labels that are not rest."""
    return {value for value in look.values if (plain(str(value)) not in RESTS if look.text else value)}


def _columns(seen: Seen, labels: Sequence[Path]) -> tuple[list[str], list[str], int | str | None]:
    """Lines for rate, unit, channels and labels; the names of movements where they are words; the column of labels."""
    looks, rising = seen.looks, {name for name, one in seen.looks.items() if one.rises}
    time = next((name for name in looks if re.fullmatch(_TIME, str(name)) and name in rising), None)
    label, unsure = (None, []) if labels else _label(looks, rising)
    repetition = next((name for name in sorted(looks, key=lambda n: str(n)[:4] != "rere") if name != label and looks[
        name].steps and not looks[name].text and re.fullmatch(_REPETITION, str(name))), None)
    left = {name: one.why or "by its name" for name, one in looks.items() if name not in (time, label, repetition)
            and (one.why or re.fullmatch(_OTHER, str(name)))}
    channels = [name for name in looks if name not in (time, label, repetition) and name not in left]
    named = [name for name in channels if re.search(r"(?i)e[mx]g", str(name))]
    left |= {name: "not named as EMG" for name in channels if named and not re.search(r"(?i)e[mx]g", str(name))}
    channels = [name for name in channels if name not in left]
    lines = _rate(seen, time) + _unit(seen, channels) + [f"channels = {_toml(_joined(channels, seen.widths))}"]
    if not channels:
        lines[-1] = "# " + lines[-1] + "   # no column looks like an electrode's: fill in"
    if left:
        lines.append("# left out: " + ", ".join(f"{name} ({why})" for name, why in left.items()))
    words = sorted(looks[label].values) if label is not None and looks[label].text else []
    if labels:
        more, words, label = _beside(labels[0])
        return [*lines, *more], words, label
    if seen.marks and label is None:
        lasting = {text for text, lasts, _ in seen.marks if lasts}
        if not lasting:
            lines.append("# " * (not all(never for *_, never in seen.marks)) + f"hold = true   # {seen.marks.total()} "
                         "annotations last no time: hold each until the next?")
        return lines, sorted(lasting or {text for text, *_ in seen.marks}), ""
    if label is None:
        both = f"columns {', '.join(map(str, unsure))} hold steps: which is the movement?"
        lines.append('# label = "?"   # ' + (both if unsure else "which column is the movement?"))
    else:
        lines.append(f"label = {_toml(label)}   # holds {looks[label].some()}")
    return lines + ([f"repetition = {_toml(repetition)}"] if repetition is not None else []), words, label


def _beside(path: Path) -> tuple[list[str], list[str], int | str]:
    """Lines for a file of labels, the names of movements and the column."""
    columns = formats.read(path, formats.of(path).names(path)).columns
    looks = {name: doubts.look(values.reshape(-1)) for name, values in columns.items()}
    label = next((name for name in looks if re.fullmatch(_LABEL, str(name))), None)
    label = label if label is not None else next((n for n, one in looks.items() if one.text), next(iter(looks)))
    lines = []
    for key, words in (("start", r"(?i)(onset|start|begin).*"), ("stop", r"(?i)(stop|end|offset).*"),
                       ("duration", r"(?i)(dur|length).*")):
        lines += [f"{key} = {_toml(name)}" for name in looks if re.fullmatch(words, str(name))][:1]
    repetition = next((name for name in looks if re.fullmatch(_REPETITION, str(name)) and name != label), None)
    lines += [f"label = {_toml(label)}"] + ([f"repetition = {_toml(repetition)}"] if repetition is not None else [])
    return lines, sorted(looks[label].values) if looks[label].text else [], label


def _label(looks: dict[int | str, Look], rising: set) -> tuple[int | str | None, list]:
    """The column of movements, by name, else the only one of words, else of steps; and those that may be it."""
    able = {name: one for name, one in looks.items() if name not in rising
            and (one.steps or one.text and 1 < len(one.values) <= MOST)}
    others = [name for name in able if not any(re.fullmatch(words, str(name)) for words in (_REPETITION, _OTHER))]
    named = sorted((name for name in others if re.fullmatch(_LABEL, str(name))), key=lambda n: str(n)[:2] != "re")
    text, steps = ([name for name in others if able[name].text is kind] for kind in (True, False))
    chosen = named[:1] or (text if len(text) == 1 else []) or (steps if len(steps) == 1 and not text else [])
    return (chosen[0], []) if chosen else (None, text + steps)


def _joined(names: Sequence[int | str], widths: dict[str, int]) -> list[int | str]:
    """Columns of arrays written as briefly as possible: "emg", or "emg:1-8"."""
    made: list[Any] = []
    for name in names:
        part = formats.part_of(name)
        if part is None or part[0] not in widths:
            made.append(name)
        elif made and isinstance(made[-1], list) and made[-1][0] == part[0] and made[-1][2] == part[1] - 1:
            made[-1][2] = part[1]
        else:
            made.append([part[0], part[1], part[1]])
    return [one if not isinstance(one, list) else one[0] if one[1:] == [1, widths[one[0]]] else
            f"{one[0]}:{one[1]}" + (f"-{one[2]}" if one[2] > one[1] else "") for one in made]


def _rate(seen: Seen, time: int | str | None) -> list[str]:
    """Lines of the rate: of the files, of a column of times, or left open."""
    clocks = [clock for clock in seen.clocks.get(time, ()) if clock]
    if len(seen.rates) == 1:
        return [f"rate_hz = {min(seen.rates):g}   # as the files say"]
    if not clocks or len(seen.rates) > 1:
        said = ", ".join(f"{rate:g}" for rate in sorted(seen.rates))
        return ["# rate_hz = 2000   # " + (f"the files say {said}" if said else "samples a second") + ": fill in"]
    rates, steps = ([getattr(clock, name) for clock in clocks] for name in ("rate_hz", "step_hz"))
    rate = float(np.median(rates))
    rate = round(rate) if abs(rate / max(1, round(rate)) - 1) < 2e-3 else round(rate, 3)
    unit, back = clocks[0].unit, sum(len(clock.back) for clock in clocks)
    lines = [f"# time in column {time} runs back {back} times: were files joined?"] if back else []
    if max(rates) / min(rates) > 1.02:
        return [*lines, f"# rate_hz = {rate:g}   # by column {time}, from {min(rates):g} to {max(rates):g}: fill in"]
    if not all(clock.agrees for clock in clocks):
        return [*lines, f"# rate_hz = {rate:g}   # samples over the time from first to last in column {time}; its "
                        f"median step says {np.median(steps):g}: do stamps come in packets, or samples lack? fill in",
                f"time = {_toml(time)}"]
    if {round(clock.rate_hz, 6) for clock in clocks} == {1000} and unit == "ms" and not re.search(
            "(?i)ms|milli", str(time)):
        return [*lines, f"# rate_hz = 1000   # column {time} counts by 1: milliseconds, or samples? fill in"]
    doubt = "" if unit == "s" else f", taken to be in {unit}"
    return [*lines, f"rate_hz = {rate:g}   # by column {time}{doubt}", f"time = {_toml(time)}"]


def _unit(seen: Seen, channels: Sequence[int | str]) -> list[str]:
    """The unit that the files say, or in which these amplitudes are plausible for EMG."""
    if seen.units:
        return [f"# the unit is in the files: {', '.join(sorted(seen.units))}"]
    sizes = [size for name in channels for size in seen.looks[name].spread if size > 0]
    if not sizes:
        return ['# unit = "mV"   # no channels were found: fill in']
    size = float(np.median(sizes))
    unit = next((unit for unit, volts in UNITS.items() if health.is_likely(size * volts)), None)
    if unit is None:
        return [f'# unit = "V"   # amplitudes of {size:.3g} fit none of V, mV, uV: fill in']
    return [f'unit = "{unit}"   # a guess: amplitudes of {size:.3g} are most likely {unit}']


def _names(folder: Path, paths: Sequence[Path], label: int | str | None) -> Names:
    """The pattern that most file names follow. Words become {label} where no column (`label`) says the movement."""
    split = {path: _tokens(path.relative_to(folder).as_posix()) for path in paths}
    shape = Counter(tuple(map(_kind, parts)) for parts in split.values()).most_common(1)[0][0]
    rows = [parts for parts in split.values() if tuple(map(_kind, parts)) == shape]
    found, taken = Names("", [], [], []), {}
    columns = [[row[i] for row in rows] for i in range(len(shape))]
    moving = [i for i, values in enumerate(columns) if len(set(values)) > 1 and re.search(_MOVES, " ".join(values))]
    people = any(_kind(values[0]) == "number" and len({*before}) == 1 and re.fullmatch(
        _FIELDS["subject"], (re.findall(r"[A-Za-z]+", before[0]) or [""])[-1].lower())
        for before, values in zip(columns, columns[1:], strict=False))
    for i, values in enumerate(columns):
        other = label if label is not None or not moving or i == moving[0] else ""  # movements are named elsewhere
        found = _place(found, values, columns[i - 1] if i else [""], taken, other, len(rows) == 1, people)
    others = [str(path.relative_to(folder)) for path in paths if tuple(map(_kind, split[path])) != shape]
    remarks = [f"# {len(others)} files have other names and are left out: {', '.join(others[:3])}"] if others else []
    if "{subject}" not in found.pattern:
        remarks.append("# no {subject} was found in the names: all files are taken to be of one person")
    return found._replace(remarks=[*found.remarks, *remarks])


def _place(found: Names, values: list[str], before: list[str], taken: dict[str, list[str]], label: int | str | None,
           alone: bool, people: bool) -> Names:
    """The pattern with one more place of the names."""
    pattern, words, remarks, guessed = found
    different = sorted(set(values))
    if _kind(values[0]) in ("text", "/"):
        if len(different) == 1:
            return found._replace(pattern=pattern + values[0])
        start, end = _shared(different), _shared([value[::-1] for value in different])[::-1]
        middle = [value[len(start) : len(value) - len(end)] for value in values]
        field = _word_field(middle, label, taken, people)
        if field:
            taken[field] = middle
            words = sorted(set(middle)) if field == "label" else words
            told = f"# {{{field}}} are words, numbered in order: {', '.join(sorted(set(middle))[:5])}"
            remarks = remarks + [told] * (field != "label")
        return Names(pattern + start + (f"{{{field}}}" if field else "*") + end, words, remarks, guessed)
    same = next((name for name, own in taken.items() if own == values), None)
    word = re.search(r"([A-Za-z]+)[^A-Za-z]*$", before[0]) if len(set(before)) == 1 else None
    field, by_word = _field(word[1] if word else "", taken, len(different) > 1 or alone, label)
    if _kind(values[0]) == "stamp":
        days = {re.search(_DATE, value)[0] for value in values if re.search(_DATE, value)}
        whole = all(re.fullmatch(_DATE, value) for value in values)
        field = "session" if whole and len(days) > 1 and "session" not in taken else None
        remarks = remarks + ["# {session} are dates: numbered in order"] * bool(field)
        if "session" in guessed and len(different) > 1:  # numbers beside a time of day count files
            pattern, guessed = pattern.replace("{session}", "{run}"), []
            taken["run"] = taken.pop("session")
    elif field == "session" and not by_word:
        guessed = [*guessed, field]
    if same and not by_word and len(different) > 1:
        return Names(f"{pattern}{{{same}}}", words, remarks, guessed)
    if field:
        taken[field] = values
        words = different if field == "label" else words
    kept = f"{{{field}}}" if field else values[0] if len(different) == 1 and _kind(values[0]) == "number" else "*"
    return Names(pattern + kept, words, remarks, guessed)


def _word_field(words: list[str], label: int | str | None, taken: dict[str, list[str]], people: bool) -> str | None:
    """What words in names stand for: movements where nothing else says them, else sessions or people."""
    different = {plain(word) for word in words}
    days = all(word[:3] in DAYS for word in different)
    if label is None and "label" not in taken and not days and len(different) <= MOST:
        return "label"
    if not all(different) or different == {plain(word) for word in taken.get("label", ())}:
        return None
    return next((name for name in ("subject", "session") if name not in taken and not (
        name == "subject" and (days or people))), None)


def _field(before: str, taken: Iterable[str], differs: bool, label: int | str | None) -> tuple[str | None, bool]:
    """The field that a number stands for: by the word before it (True), else the first field not yet found."""
    for field, words in _FIELDS.items():
        if field not in taken and re.fullmatch(words, before.lower()) and (field != "label" or label is None):
            return ("repetition" if field == "run" and "label" in taken and "repetition" not in taken else field), True
    if not differs:
        return None, False
    return next(field for field in ("subject", "repetition" if "label" in taken else "session", "run", None)
                if field not in taken), False


def _tokens(name: str) -> list[str]:
    """A name as text, numbers and stamps of time in turn; folders apart."""
    return [part for part in re.split(rf"({_STAMP.pattern}|(?<!\d)\d+|/)", name) if part]


def _kind(part: str) -> str:
    return "/" if part == "/" else "number" if part.isdecimal() and not re.fullmatch(_DATE, part) else \
        "stamp" if _STAMP.fullmatch(part) else "text"


def _shared(words: Sequence[str]) -> str:
    """The beginning that words share, up to a separator."""
    same = "".join(letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*words)))
    return re.sub(r"[^\s_.,()\-]+$", "", same)
