"""Our generators' figures in the ledger: what ``dcgan evaluate NAME --record NAME`` writes.

A generator of bedrooms also answers whether the paper's samples could be copies (section 4.1).
"""

from dataclasses import asdict

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.generators import ClassQuality, GeneratorReport
from dcgan_lib.evaluation.ledger import (
    Caveat,
    Result,
    check_command,
    claims,
    format_measured,
    id_on,
    load_details,
    load_results,
    record,
    save_details,
)
from dcgan_lib.evaluation.statistics import Estimate
from dcgan_lib.paths import atomic_write, checkpoints_root

CARD_FILE, MEASURED = "card.md", "\n## Measured\n"
BEDROOMS, MEMORISATION = "bedrooms64", "bedrooms.memorisation"
MOST_COPIES, MOST_MEMORISED = 0.05, 0.10
"""[O] What the whole interval of either share may reach; the same stands in claims.toml."""


def check_record(name: str, command: str) -> None:
    """Refuse, before anything is measured, what `record_report` would refuse after it."""
    known = sorted(id.split(".")[1] for id in claims() if id[:5] == "ours." and id[-4:] == ".kid")
    if name not in known:
        raise UserError(f"the ledger has no generator called {name!r}; it has: {', '.join(known)}")
    check_command(f"ours.{name}.kid", command, "held-out images")


def record_report(report: GeneratorReport, name: str, command: str) -> list[Result]:
    """Enter a committed checkpoint's figures that have a claim, ``ours.NAME.kid`` and so on."""
    check_record(name, command)
    rows = report.rows
    sides = f"{report.image_set}, its training images and its {report.split} split"
    data = {
        "kid": f"{report.image_set}, {report.num_held_out:,} images of its {report.split} split",
        "memorised": sides,
        "copies": sides,
    }
    notes = {"kid": f"; before training {rows['untrained_kid'].estimate.value:.3f}"}
    if "fid" in rows:
        notes["kid"] += (
            f"; FID on the same features {rows['fid'].estimate.value:.2f} at n {rows['fid'].n:,}"
        )
    for key in ("memorised", "copies"):
        if f"{key}_pixels" in rows:
            in_pixels = rows[f"{key}_pixels"]
            notes[key] = f"; in pixels {in_pixels.in_unit.text('.1f')} %"
            if in_pixels.too_weak:
                notes[key] += f", but {in_pixels.too_weak}"
    recorded = [
        record(
            f"ours.{name}.{key}",
            row.in_unit,
            unit=row.unit,
            n=row.n,
            data=data.get(key, f"{row.n:,} samples"),
            command=command,
            seconds=report.seconds,
            seed=report.seed,
            checkpoint=report.checkpoint,
            notes=row.how + notes.get(key, ""),
            caveat=Caveat(kind="not at scale", why=row.too_weak) if row.too_weak else None,
        )
        for key, row in rows.items()
        if f"ours.{name}.{key}" in claims()
    ]
    if name == "bedrooms" and report.image_set == BEDROOMS and "copies" in rows:
        recorded.append(_record_bedrooms(report, command))
    if report.classes:
        save_details(f"classes/{name}", [asdict(row) for row in report.classes])
    if report.checkpoint == name:  # the committed one, and no run of its own
        card = checkpoints_root() / name / CARD_FILE
        before = card.read_text(encoding="utf-8").partition(MEASURED)[0]
        atomic_write(card, before + measured_text(name))
    return recorded


def measured_text(name: str) -> str:
    """Return what stands of a generator's rows in its card, at the end."""
    lines = [MEASURED, "| what | here | n | verdict | how |", "|---|---|---:|---|---|"]
    lines += [
        f"| {row.claim} | {format_measured(row)} | {row.n:,} | {row.verdict} | {row.notes} |"
        for row in load_results()
        if row.id.startswith(f"ours.{name}.") and row.is_measured
    ]
    return "\n".join(lines) + "\n"


def _record_bedrooms(report: GeneratorReport, command: str) -> Result:
    """Write the paper's claim on bedrooms: the samples are not copies of training images."""
    copies, copies_pixels = report.rows["copies"], report.rows["copies_pixels"]
    memorised = report.rows["memorised"]
    most, share = f"{100 * MOST_COPIES:.0f} %", f"{100 * MOST_MEMORISED:.0f} %"
    checks = {
        f"by features, at most {most} of the samples are copies": (
            copies.estimate.high <= MOST_COPIES
        ),
        f"by pixels, at most {most} are": copies_pixels.estimate.high <= MOST_COPIES,
        "control: copies that are shifted by a pixel would be found by both": (
            copies.too_weak is None and copies_pixels.too_weak is None
        ),
        f"the samples lie no nearer to training images than {share} of copies would bring them": (
            memorised.estimate.high <= MOST_MEMORISED
        ),
    }
    return record(
        id_on(MEMORISATION, report.image_set),
        copies.in_unit,
        unit="%",
        n=copies.n,
        data=f"{report.image_set}, its training images and its {report.split} split",
        command=command,
        seconds=report.seconds,
        seed=report.seed,
        checkpoint=report.checkpoint,
        checks=checks,
        caveat=Caveat(
            kind="not at scale",
            why="the paper's generator saw 3 million images once or five times, ours a few "
            "thousand over and over",
        ),
        notes=(
            f"share of copies by features; {copies.how}; memorised "
            f"{memorised.in_unit.text('.1f')} %: {memorised.how}"
        ),
    )


def load_classes(name: str) -> tuple[ClassQuality, ...]:
    """Return what was recorded of each class of a conditional generator."""
    kept = load_details(f"classes/{name}", f"dcgan evaluate {name} --record {name}")
    return tuple(
        ClassQuality(**{key: Estimate(*v) if isinstance(v, list) else v for key, v in row.items()})
        for row in kept
    )
