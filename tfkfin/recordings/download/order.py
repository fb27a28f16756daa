"""What of Ninapro can be fetched, where from, and what a user wants of it."""

import re
from dataclasses import dataclass
from pathlib import Path

from tfkfin.console import InputError, format_numbers
from tfkfin.recordings.readers import ninapro

SITE = "https://ninapro.hevs.ch/files"
_ATZORI = ("M. Atzori et al., Electromyography data for non-invasive naturally-controlled robotic hand prostheses, "
           "Scientific Data 1:140053 (2014), doi 10.1038/sdata.2014.53")
_GIJSBERTS = ("A. Gijsberts et al., Movement error rate for evaluation of machine learning methods for sEMG-based hand "
              "movement classification, IEEE TNSRE 22(4):735-744 (2014), doi 10.1109/TNSRE.2014.2303394 (the labels)")
_KRASOULIS = ("A. Krasoulis et al., Improved prosthetic hand control with concurrent use of myoelectric and inertial "
              "measurements, J. NeuroEng. Rehabil. 14:71 (2017), doi 10.1186/s12984-017-0284-4")


@dataclass(frozen=True)
class Source:
    """Where a database is on the site, and what it asks of its users."""

    archive: str
    folder: str  # that its archives hold, and that we unpack to
    cite: tuple[str, ...]


SOURCES = {
    "db2": Source("DB2_Preproc/DB2_s{}.zip", "DB2_s{}", (_ATZORI, _GIJSBERTS)),
    "db3": Source("db3_Preproc/s{}_0.zip", "DB3_s{}", (_ATZORI, _GIJSBERTS)),
    "db7": Source("DB7_Preproc/Subject_{}.zip", "Subject_{}", (_KRASOULIS, _ATZORI)),
}


@dataclass(frozen=True)
class Order:
    """What is wanted. Empty `subjects` are all of the database."""

    database: str
    folder: Path
    subjects: tuple[int, ...] = ()
    exercises: tuple[int, ...] = (1,)
    url: str = SITE
    connections: int = 2
    keep_zips: bool = True

    def __post_init__(self):
        if self.database not in SOURCES:
            raise InputError(f"database '{self.database}' cannot be fetched: choose {', '.join(SOURCES)}")
        facts = ninapro.DATABASES[self.database]
        object.__setattr__(self, "subjects", self.subjects or tuple(range(1, facts.subjects + 1)))
        for what, numbers, last in (("subject", self.subjects, facts.subjects),
                                    ("exercise", self.exercises, len(facts.movements))):
            beyond = [number for number in numbers if number > last]
            if beyond:
                raise InputError(f"{self.database} has no {what} {format_numbers(beyond)}: it has 1-{last}")
        if not re.match(r"https?://[^/]", self.url):
            raise InputError(f"'{self.url}' is not an address: write http://... or https://...")
        if not 1 <= self.connections <= 4:
            raise InputError(f"{self.connections} connections: 1 to 4 are allowed, to leave some to others")
        if self.folder.exists() and not self.folder.is_dir() or (self.folder / "recordings.toml").exists():
            raise InputError(f"{self.folder} is a file or holds own recordings: choose another folder with --to")


@dataclass(frozen=True)
class Outcome:
    """What became of one subject."""

    subject: int
    state: str
    failure: str = ""
    fetched: int = 0  # bytes, in this run
    seconds: float = 0.0


def recordings(folder: Path) -> dict[tuple[int, int], Path]:
    """(subject, exercise) -> file, at any depth, as `ninapro.find` sees them, but of all exercises."""
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(folder.rglob("*")):
        match = re.fullmatch(r"S(\d+)_(?:E(\d)_A1|A1_E(\d))\.mat", path.name, re.IGNORECASE)
        if match and path.is_file() and "__MACOSX" not in path.parts:
            key = int(match[1]), int(match[2] or match[3])
            if key in found:
                raise InputError(f"{found[key]} and {path} are the same recording: keep one in the folder")
            found[key] = path
    return found
