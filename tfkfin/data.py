"""`python -m tfkfin.data`: makes, fetches, checks, describes, converts and shows recordings."""

from dataclasses import asdict
from pathlib import Path

from tfkfin.base.answers import answer, answer_path, command_line, paper, parsed, track
from tfkfin.base.console import format_numbers, log, numeric, parse_numbers, run
from tfkfin.base.errors import InputError

_EXAMPLES = """examples:
  python -m tfkfin.data synthesize data/synthetic --subjects 1-3 --hold 1.5 --rest 0.6
  python -m tfkfin.data download db2 --subjects 1-3 --to data/DB2
  python -m tfkfin.data info data/DB2
  python -m tfkfin.data verify data/DB2 && echo fit
  python -m tfkfin.data sheet MINE --write && python -m tfkfin.data info MINE
  python -m tfkfin.data bids MINE --to MINE_BIDS
  python -m tfkfin.data plot data/DB2 --subject 1 --movement 5 --to movement5.png

Files are named S{n}_E{k}_A1.mat or S{n}_A1_E{k}.mat, at any depth, or form a BIDS dataset. A folder of own files (CSV,
NumPy, Parquet, MATLAB, EDF, BDF) needs a recordings.toml: see docs/recordings.md. Recordings are never changed."""


def main(argv: list[str]) -> None:
    if argv[:1] == ["serve-input"]:
        raise InputError("data serve-input was removed: each training makes its own batches, and launch.input_service "
                         "must be left out")
    text = "Makes, checks, describes, converts and shows recordings."
    parser = command_line("data", "info DIR", text, _EXAMPLES)
    commands = parser.add_subparsers(prog=parser.prog, required=True, metavar="command")
    for add in COMMANDS:
        add(commands)
    options = parsed(parser, argv)
    options.action(options)


def _add_synthesize(commands) -> None:
    parser = commands.add_parser("synthesize", help="write seeded synthetic recordings laid out like Ninapro DB2")
    parser.add_argument("folder", type=Path, metavar="DIR", help="of the new files; none is ever overwritten")
    parser.add_argument("--subjects", default="1-3", help="numbers, as in 1-3,7 (default: %(default)s)")
    for name, kind, default, text in (
        ("movements", int, 17, "movements"), ("repetitions", int, 6, "repetitions of each"),
        ("channels", int, 12, "electrodes"), ("rate", float, 2000.0, "samples a second"),
        ("hold", float, 5.0, "seconds a movement is held"), ("rest", float, 3.0, "seconds of rest between"),
        ("seed", numeric(int, 0, 2**32 - 1), 1, "equal seeds give equal files"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (default: %(default)s)")
    parser.add_argument("--extras", action="store_true", help="also acc, glove and inclin, as in DB2")
    parser.add_argument("--v73", action="store_true", help="MATLAB 7.3 (HDF5) instead of v5")
    parser.set_defaults(action=_synthesize)


def _synthesize(options) -> None:
    from tfkfin.recordings import synthetic

    paths = synthetic.synthesize(
        options.folder, parse_numbers(options.subjects), seed=options.seed, extras=options.extras,
        v73=options.v73, movements=options.movements, repetitions=options.repetitions, channels=options.channels,
        rate_hz=options.rate, hold_s=options.hold, rest_s=options.rest)
    log.info("wrote %d synthetic recordings to %s", len(paths), options.folder)
    answer({"made": paths})


def _add_download(commands) -> None:
    from tfkfin.recordings.download import command as download_command

    text = "download, verify and unpack Ninapro DB2, DB3 or DB7; the same command resumes"
    download_command.add_options(commands.add_parser("download", help=text, description=text))


def _add_reading(commands, name: str, text: str, action):
    parser = commands.add_parser(name, help=text)
    parser.add_argument("folder", type=Path, metavar="DIR", help="searched at any depth")
    parser.add_argument("--exercise", metavar="K", default="1", help="the k of S{n}_E{k}_A1.mat; several together: 1-3 "
                        "(default: %(default)s)")
    parser.set_defaults(action=action)
    return parser


def _add_subjects(parser) -> None:
    parser.add_argument("--subjects", default="", help="numbers, as in 1-3,7 (default: all)")


def _add_info(commands) -> None:
    _add_subjects(_add_reading(commands, "info", "show a table of the recordings in a folder", _info))


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
        doubt = health.doubt(found.rms_v)
        remarks = [*([doubt] if doubt else []), *recording.notes]
        made = ["synthetic: nobody was recorded"] if recording.synthetic else []
        notes += [f"{file}: {note}" for note in made + remarks]
        names |= recording.names
        every[-1] |= {"files": file.signals, "movements": movements, "repetitions": repetitions,
                      "seconds": recording.seconds, "rate_hz": recording.rate_hz, "channels": recording.num_channels,
                      "names": recording.names, "synthetic": recording.synthetic, "notes": remarks, **asdict(found)}
    answer(every)
    if names:
        notes.insert(0, "movements: " + ", ".join(f"{number} {name}" for number, name in sorted(names.items())))
    console = paper()
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    if not table.row_count:
        raise InputError(f"no recording in {options.folder} is fit")


def _add_verify(commands) -> None:
    _add_reading(commands, "verify", "read every file; exit code 2 and the reasons if any is unfit", _verify)


def _verify(options) -> None:
    console, unfit, every = paper(soft_wrap=True), [], []
    for file, recording, error in _recordings(options):
        every.append({"file": file.path, "fit": not error, "why": error})
        if error:
            unfit.append(file.path.name)
            console.print(f"unfit  {error}", markup=False, highlight=False)
        else:
            notes = f" ({'; '.join(recording.notes)})" if recording.notes else ""
            console.print(f"fit    {file.path}{notes}", markup=False, highlight=False)
    answer(every)
    if unfit:
        raise InputError(f"{len(unfit)} of {len(every)} recordings in {options.folder} are unfit: {', '.join(unfit)}")


def _add_plot(commands) -> None:
    parser = _add_reading(commands, "plot", "draw a movement: signals, labels, windows", _plot)
    parser.add_argument("--subject", type=int, required=True)
    parser.add_argument("--movement", type=int, required=True, help="as numbered in the file")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE.png", help="never overwritten")
    parser.add_argument("--length", type=numeric(float, 0.01, 1e5), default=300,
                        help="ms of a window (default: %(default)s)")
    parser.add_argument("--stride", type=numeric(float, 0.01, 1e5), default=10,
                        help="ms between windows (default: %(default)s)")


def _plot(options) -> None:
    from tfkfin.pipeline import picture
    from tfkfin.recordings import readers

    file = readers.find(options.folder, (options.subject,), parse_numbers(options.exercise))[0]
    picture.draw(readers.read(file), options.movement, options.to, options.length, options.stride)
    answer_path(options.to)


def _add_sheet(commands) -> None:
    parser = commands.add_parser("sheet", help="draft a recordings.toml for a folder of own recordings")
    parser.add_argument("folder", type=Path, metavar="DIR", help="searched at any depth")
    parser.add_argument("--write", action="store_true", help="write it to DIR, if there is none (default: show it)")
    parser.set_defaults(action=_sheet)


def _sheet(options) -> None:
    from tfkfin.base.files import write_text
    from tfkfin.recordings import draft, readers
    from tfkfin.recordings.sheet import SHEET

    if not options.folder.is_dir():
        raise InputError(f"{options.folder} is no folder")
    target = options.folder / SHEET
    if target.exists():
        raise InputError(f"{target} is there already: see python -m tfkfin.data info {options.folder}")
    text = draft.draft(options.folder, readers.walk(options.folder))
    answer({"sheet": text} | ({"made": target} if options.write else {}))
    if not options.write:
        paper(soft_wrap=True).print(text, end="", markup=False, highlight=False)
        return
    write_text(target, text)
    log.info("wrote %s: read it through, then python -m tfkfin.data info %s", target, options.folder)


def _add_bids(commands) -> None:
    parser = _add_reading(commands, "bids", "write recordings as a BIDS dataset of EMG (extra: formats)", _bids)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    _add_subjects(parser)
    parser.add_argument("--format", choices=("bdf", "edf"), default="bdf", help="24 or 16 bits (default: %(default)s)")
    parser.add_argument("--name", default="", help="name of the dataset (default: DIR's)")


def _bids(options) -> None:
    from tfkfin.recordings import bids

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

    wanted = getattr(options, "subjects", "")
    files = readers.find(options.folder, parse_numbers(wanted) if wanted else None, parse_numbers(options.exercise))
    for file in track(files, "reading"):
        try:
            yield file, readers.read(file), None
        except InputError as error:
            yield file, None, error


# Each function adds one subcommand and sets its `action`.
COMMANDS = [_add_synthesize, _add_download, _add_info, _add_verify, _add_plot, _add_sheet, _add_bids]

if __name__ == "__main__":
    run(main)
