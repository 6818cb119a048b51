#!/usr/bin/env python3
"""Unpacks a bundle: decode.py BUNDLE DIR. Needs only Python 3.8 and the `zstd` command.

A second implementation of docs/FORMAT.md, short rather than fast. It trusts the structure of the
manifest (check its signature first) and checks every hash. Files go to DIR/ROOT/PATH, where ROOT
is the path of a model or of extra files, or an image's config digest.
"""
import hashlib, json, pathlib, subprocess, sys


def decode(encoding, stored, raw):
    if encoding == "stored":
        return stored
    planes = subprocess.run(["zstd", "-dcq"], input=stored, stdout=subprocess.PIPE, check=True).stdout
    if encoding == "zstd":
        return planes
    width, rotate, out, start = int(encoding[6]), int(encoding[8]), bytearray(raw), 0
    for i in range(width):
        end = start + len(range(i, raw, width))
        out[i::width] = planes[start:end]
        start = end
    for at in range(0, raw - width + 1, width):  # each element right by `rotate` bits
        n = int.from_bytes(out[at:at + width], "little") * (1 << 8 * width - rotate)
        out[at:at + width] = (n >> 8 * width | n % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(out)


def main(bundle, target):
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert manifest["format"] == 1
    trees = [(m["path"].lstrip("/"), m["files"]) for m in manifest["models"]]
    trees += [(i["config"], i["files"]) for i in manifest["images"]]
    trees += [(e["path"].lstrip("/"), e["files"]) for e in manifest["extras"]]
    for root, files in trees:
        for file in files:
            path = target / root / file["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with open(path, "wb") as out:
                for chunk in (manifest["chunks"][index] for index in file["chunks"]):
                    assert chunk["volume"], f"only the base has it: {manifest['base']}"
                    with open(bundle / manifest["volumes"][chunk["volume"] - 1]["name"], "rb") as volume:
                        volume.seek(chunk["offset"])
                        stored = volume.read(chunk["stored"])
                    assert hashlib.sha256(stored).hexdigest() == chunk["blob"], f"damaged: {chunk}"
                    raw = decode(chunk["encoding"], stored, chunk["raw"])
                    digest.update(raw)
                    out.write(raw)
            assert digest.hexdigest() == file["sha256"], f"wrong content: {path}"


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
