"""`python -m tfkfin.data`: makes, fetches, checks, describes, converts and shows recordings.

examples:
  python -m tfkfin.data synthesize data/synthetic --subjects 1-3 --hold 1.5 --rest 0.6
  python -m tfkfin.data record MINE --source lsl --movements fist,open,pinch --cued 3
  python -m tfkfin.data download db2 --subjects 1-3 --to data/DB2
  python -m tfkfin.data info data/DB2
  python -m tfkfin.data verify data/DB2 && echo fit
  python -m tfkfin.data sheet MINE --write && python -m tfkfin.data info MINE
  python -m tfkfin.data bids MINE --to MINE_BIDS
  python -m tfkfin.data plot data/DB2 --subject 1 --movement 5 --to movement5.png

Files are named S{n}_E{k}_A1.mat or S{n}_A1_E{k}.mat, at any depth, or form a BIDS dataset. A folder of own files (CSV,
NumPy, Parquet, MATLAB, EDF, BDF) needs a recordings.toml: see docs/recordings.md. Recordings are never changed."""

import os
from functools import partial
from pathlib import Path

from tfkfin.base import registry
from tfkfin.base.answers import answer, answer_path, command_line, margin, paper, parsed, track
from tfkfin.base.console import format_numbers, log, parse_numbers, run
from tfkfin.base.errors import InputError
from tfkfin.base.options import add_options


def main(argv: list[str]) -> None:
    if argv[:1] == ["serve-input"]:
        raise InputError("data serve-input was removed: each training makes its own batches, and launch.input_service "
                         "must be left out")
    text, examples = "Makes, checks, describes, converts and shows recordings.", __doc__.partition("\n\n")[2]
    parser = command_line("data", "info DIR", text, examples)
    commands = parser.add_subparsers(prog=parser.prog, required=True, metavar="command")
    _add_synthesize(commands)
    _add_download(commands)
    _add_reading(commands)
    _add_record(commands, "record" in argv)
    options = parsed(parser, argv)
    options.action(options)


def _add_synthesize(commands) -> None:
    parser = commands.add_parser("synthesize", help="write seeded synthetic recordings laid out like Ninapro DB2")
    add_options(parser, "data-synthesize")
    parser.set_defaults(action=_synthesize)


def _add_download(commands) -> None:
    from tfkfin.recordings.download import SITE, SOURCES

    text = "download, verify and unpack Ninapro DB2, DB3 or DB7; the same command resumes"
    parser = commands.add_parser("download", help=text, description=text)
    add_options(parser, "data-download", database=tuple(SOURCES))
    parser.add_argument("--url", default=os.environ.get("TFKFIN_NINAPRO_URL") or SITE, metavar="URL",
                        help=f"a mirror of {SITE} (default: $TFKFIN_NINAPRO_URL, or the site itself)")
    parser.set_defaults(action=_download)


def _add_reading(commands) -> None:
    """Commands that read a folder of recordings."""
    for name, action, text in (
        ("info", _info, "show a table of the recordings in a folder"),
        ("verify", _verify, "read every file; exit code 2 and the reasons if any is unfit"),
        ("plot", _plot, "draw a movement: signals, labels, windows"),
        ("sheet", _sheet, "draft a recordings.toml for a folder of own recordings"),
        ("bids", _bids, "write recordings as a BIDS dataset of EMG (extra: formats)"),
    ):
        parser = commands.add_parser(name, help=text)
        parser.set_defaults(action=action, subjects="")
        add_options(parser, "data-read")
        if name != "sheet":  # drafted before anything says what an exercise is
            add_options(parser, "data-exercise")
        add_options(parser, f"data-{name}")


def _add_record(commands, asked: bool) -> None:
    """`asked`: whether sources are loaded for their options, which takes a while."""
    text = "ask for movements and record them from a device, an LSL stream, or a recording as if it were one"
    parser = commands.add_parser("record", help=text, description=text)
    kinds = registry.names("live/sources")
    add_options(parser, "data-record", source=kinds)
    for kind in kinds if asked else ():
        registry.load("live/sources", kind, "SOURCE").options(parser)
    parser.set_defaults(action=_record, seconds=1.0)  # a synthetic person goes on


def _record(options) -> None:
    from tfkfin.live import first

    answer_path(first.record(options, options.folder))


def _say(console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _synthesize(options) -> None:
    from tfkfin.recordings import synthetic

    own = ("seed", "extras", "v73", "movements", "repetitions", "channels", "rate_hz", "hold_s", "rest_s")
    paths = synthetic.synthesize(options.folder, parse_numbers(options.subjects), **{k: vars(options)[k] for k in own})
    log.info("wrote %d synthetic recordings to %s", len(paths), options.folder)
    answer({"made": paths})


def _download(options) -> None:
    """Downloads with progress bars, or, without a terminal, with a line for each event; then tells how to cite."""
    from rich.box import SIMPLE_HEAD
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.table import Table

    from tfkfin.recordings.download import Download

    console, tasks = margin(soft_wrap=True), {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        def progress(part) -> None:
            if part not in tasks:  # one thread per file, so no lock is needed
                tasks[part] = bars.add_task(part.target.name, total=None, completed=part.size)
            # Bars of complete files disappear.
            bars.update(tasks[part], completed=part.size, total=part.length, visible=part.size != part.length)

        download = Download(
            options.database, options.to or Path("data", options.database.upper()),
            parse_numbers(options.subjects) if options.subjects else (), parse_numbers(options.exercises),
            options.url, options.connections, options.keep_zips, options.stall, partial(_say, bars.console), progress)
        outcomes = download.run()
    table, failed = Table(title=f"{download.database} in {download.folder}", box=SIMPLE_HEAD), {}
    for head in ("subject", "state", "MB", "s"):
        table.add_column(head, justify="left" if head == "state" else "right")
    for subject, state, failure, fetched, seconds in outcomes:
        table.add_row(str(subject), state, f"{fetched / 1e6:.1f}", f"{seconds:.0f}")
        if failure:
            failed.setdefault(failure, []).append(subject)
    console = paper(soft_wrap=True)
    answer({"folder": download.folder, "subjects": [one._asdict() for one in outcomes]})
    console.print(table)
    _say(console, "Ninapro asks you to cite, in any work with these data:",
         *(f"- {paper}" for paper in download.source.cite))
    if failed:
        reasons = [f"subject {format_numbers(subjects)}: {reason}" for reason, subjects in failed.items()]
        raise InputError(f"{sum(map(len, failed.values()))} of {len(outcomes)} subjects are missing: "
                         f"{'; '.join(reasons[:4])}{' ...' if len(reasons) > 4 else ''}. The others are complete; run "
                         "the same command again to continue")
    if 1 in download.exercises:
        _say(console, f"Train on them: python -m tfkfin.train --stage finetune --data {download.folder} "
                      f"{download.source.train}")


def _info(options) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from tfkfin.recordings import health

    heads = "subject", "moves", "reps", "missing", "s", "Hz", "chan", "RMS", "flat", "clipped", "50Hz %", "60Hz %"
    table, notes = Table(*heads, title=str(options.folder), box=SIMPLE_HEAD, padding=0, collapse_padding=True), []
    names, every = {}, []
    for file, recording, error in _recordings(options):
        every.append({"subject": file.subject, "session": file.session})
        if error:
            notes.append(f"{file}: unfit: {error}")
            every[-1]["unfit"] = str(error)
            continue
        found, moving = health.examine(recording), recording.labels > 0
        movements, repetitions = (sorted(set(column[moving & (column > 0)].tolist()))
                                  for column in (recording.labels, recording.repetitions))
        missing = ", ".join(f"{m}x{r}" for m, r in found.missing[:5]) + (" ..." if len(found.missing) > 5 else "")
        table.add_row(str(file).removeprefix("subject "), format_numbers(movements), format_numbers(repetitions),
                      missing, f"{recording.seconds:.0f}", f"{recording.rate_hz:g}", str(recording.num_channels),
                      health.volts(found.rms_v), format_numbers(found.flat), format_numbers(found.clipped),
                      *(f"{100 * share:.1f}" for share in found.mains))
        remarks = list(recording.notes)
        made = ["synthetic: nobody was recorded"] if recording.synthetic else []
        notes += [f"{file}: {note}" for note in made + remarks]
        names |= recording.names
        every[-1] |= {"files": file.signals, "movements": movements, "repetitions": repetitions,
                      "seconds": recording.seconds, "rate_hz": recording.rate_hz, "channels": recording.num_channels,
                      "names": recording.names, "synthetic": recording.synthetic, "notes": remarks, **found._asdict()}
    answer(every)
    if names:
        notes.insert(0, "movements: " + ", ".join(f"{number} {name}" for number, name in sorted(names.items())))
    console = paper()
    console.print(table)
    _say(console, *notes)
    if not table.row_count:
        raise InputError(f"no recording in {options.folder} is fit")


def _verify(options) -> None:
    console, unfit, every = paper(soft_wrap=True), [], []
    for file, recording, error in _recordings(options):
        every.append({"file": file.path, "fit": not error, "why": error})
        if error:
            unfit.append(file.path.name)
            _say(console, f"unfit  {error}")
        else:
            _say(console, f"fit    {file.path}" + (f" ({'; '.join(recording.notes)})" if recording.notes else ""))
    answer(every)
    if unfit:
        raise InputError(f"{len(unfit)} of {len(every)} recordings in {options.folder} are unfit: {', '.join(unfit)}")


def _plot(options) -> None:
    from tfkfin.pipeline import picture
    from tfkfin.recordings import readers

    file = readers.find(options.folder, (options.subject,), parse_numbers(options.exercise))[0]
    picture.draw(readers.read(file), options.movement, options.to, options.length, options.stride)
    answer_path(options.to)


def _sheet(options) -> None:
    from tfkfin.base.files import write_text
    from tfkfin.recordings import readers
    from tfkfin.recordings.draft import draft
    from tfkfin.recordings.sheet import SHEET

    if not options.folder.is_dir():
        raise InputError(f"{options.folder} is no folder")
    target = options.folder / SHEET
    if target.exists():
        raise InputError(f"{target} is there already: see python -m tfkfin.data info {options.folder}")
    paths = readers.walk(options.folder)
    if kind := readers.known(options.folder, paths):
        raise InputError(f"{options.folder} is read as it is, by its layout of {kind}, so there is nothing to draft: "
                         f"python -m tfkfin.data info {options.folder}. Keep own files in a folder of their own")
    text = draft(options.folder, paths)
    answer({"sheet": text} | ({"made": target} if options.write else {}))
    if not options.write:
        paper(soft_wrap=True).print(text, end="", markup=False, highlight=False)
        return
    write_text(target, text)
    log.info("wrote %s: read it through, then python -m tfkfin.data info %s", target, options.folder)


def _bids(options) -> None:
    from tfkfin.recordings.readers import bids

    def fit():
        for _, recording, error in _recordings(options):
            if error:
                raise error
            yield recording

    written = bids.write(fit(), options.to, options.name or options.folder.resolve().name, options.format)
    log.info("wrote %d files of signals to %s", len(written), options.to)
    answer({"made": written})


def _recordings(options):
    """Yields (file, recording or None, error or None) for each file, with a progress bar on stderr."""
    from tfkfin.recordings import readers

    wanted = parse_numbers(options.subjects) if options.subjects else None
    files = readers.find(options.folder, wanted, parse_numbers(options.exercise))
    for file in track(files, "reading"):
        try:
            yield file, readers.read(file), None
        except InputError as error:
            yield file, None, error


if __name__ == "__main__":
    run(main)
