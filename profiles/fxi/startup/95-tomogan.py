"""Denoised slices of every tomography scan: copy into the startup folder, after the RunEngine."""

from tomogan_bluesky import TomoGANCallback

tomogan = TomoGANCallback.from_profile("profiles/fxi/tomogan.yml", publish="tomogan")
RE.subscribe(tomogan)  # noqa: F821  # made by an earlier startup file
