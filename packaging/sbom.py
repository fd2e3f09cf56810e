"""Writes the bill of materials of the binary, CycloneDX 1.5 in JSON, from Cargo's own metadata.

    packaging/sbom.py COMMIT ARCHITECTURE...

It has the crates that are compiled into the binary for one of the architectures, not those that only build or test it.
"""

import datetime
import json
import os
import subprocess
import sys
import tomllib
import uuid


def metadata(architecture):
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    return json.loads(subprocess.check_output([*command, "--filter-platform", f"{architecture}-unknown-linux-musl"]))


def shipped(graph):
    """The ids of the crates in the binary, each with those that it uses."""
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    found, waiting = {}, [graph["resolve"]["root"]]
    while waiting:
        crate = waiting.pop()
        if crate in found:
            continue
        uses = [
            dependency["pkg"]
            for dependency in nodes[crate]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        found[crate] = uses
        waiting.extend(uses)
    return found


def component(package, checksums):
    name, version = package["name"], package["version"]
    purl = f"pkg:cargo/{name}@{version}"
    entry = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if package["description"]:
        entry["description"] = package["description"].strip()
    if package["license"]:
        # Crates of before 2021 write "MIT/Apache-2.0".
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if package["repository"]:
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    if checksum := checksums.get((name, version)):
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


def main():
    commit, *architectures = sys.argv[1:]
    with open("Cargo.lock", "rb") as file:
        locked = tomllib.load(file)["package"]
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in locked}
    packages, uses, root = {}, {}, None
    for architecture in architectures:
        graph = metadata(architecture)
        packages.update({package["id"]: package for package in graph["packages"]})
        root = graph["resolve"]["root"]
        for crate, of_it in shipped(graph).items():
            uses.setdefault(crate, set()).update(of_it)
    components = {crate: component(packages[crate], checksums) for crate in uses}
    reference = {crate: entry["bom-ref"] for crate, entry in components.items()}

    program = components.pop(root)
    program["type"] = "application"
    program["properties"] = [{"name": "roomcast:commit", "value": commit}]
    # The same sources make the same document.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{program['purl']}?{commit}&{' '.join(architectures)}")
    moment = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": program},
        "components": sorted(components.values(), key=lambda entry: entry["bom-ref"]),
        "dependencies": sorted(
            ({"ref": reference[crate], "dependsOn": sorted(reference[used] for used in of_it)} for crate, of_it in uses.items()),
            key=lambda entry: entry["ref"],
        ),
    }
    json.dump(document, sys.stdout, indent=1)
    print()


main()
