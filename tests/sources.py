# SPDX-License-Identifier: Apache-2.0
"""What images are made of, for the tests."""
import hashlib
import io
import json
import tarfile


def write_tar(path, *members):
    """A tarball of (name, content or None, attributes)."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            info.mode = 0o644
            info.mtime = 1_500_000_000
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content or b""))
    return path


def oci_layout(folder, layers, config, architecture="amd64"):
    """An OCI image layout with one image, tagged `latest`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}",
                "size": len(data)}
    layer_blobs = [blob(layer, "layer.v1.tar") for layer in layers]
    described = {"architecture": architecture, "os": "linux", "config": config, "rootfs": {
        "type": "layers", "diff_ids": [layer["digest"] for layer in layer_blobs]}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": blob(json.dumps(described).encode(), "config.v1+json"),
                "layers": layer_blobs}
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
