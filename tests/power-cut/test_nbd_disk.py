"""The disk forgets what it may forget, and nothing else: checked before each run of the rig."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from nbd_disk import SECTOR, VolatileDisk

OLD, NEW = b"o" * SECTOR, b"n" * SECTOR


class VolatileDiskTest(unittest.TestCase):
    def setUp(self) -> None:
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115 # closed by the clean-up
        self.addCleanup(file.close)
        self.image = Path(file.name)
        self.image.write_bytes(bytes(64 * SECTOR))

    def disk(self, keep: float = 0.0, seed: int = 1) -> VolatileDisk:
        return VolatileDisk(self.image, keep, seed, flush_ms=0)

    def sector(self, number: int) -> bytes:
        return self.image.read_bytes()[number * SECTOR : (number + 1) * SECTOR]

    def test_a_write_is_read_back_and_not_in_the_image_before_the_flush(self) -> None:
        disk = self.disk()
        disk.write(2 * SECTOR, OLD + OLD, force=False)
        disk.write(3 * SECTOR, NEW, force=False)
        self.assertEqual(disk.read(SECTOR, 3 * SECTOR), bytes(SECTOR) + OLD + NEW)
        self.assertEqual(self.image.read_bytes(), bytes(64 * SECTOR))
        disk.flush()
        self.assertEqual(self.sector(2) + self.sector(3), OLD + NEW)

    def test_a_cut_forgets_what_was_not_flushed_and_nothing_else(self) -> None:
        disk = self.disk()
        disk.write(0, OLD, force=False)
        disk.flush()
        disk.write(0, NEW, force=False)
        report = disk.cut()
        self.assertEqual(self.sector(0), OLD)
        self.assertEqual((report["pending_writes"], report["lost_writes"]), (1, 1))

    def test_a_forced_write_stays_and_no_older_one_comes_over_it(self) -> None:
        disk = self.disk(keep=1.0)
        disk.write(5 * SECTOR, OLD + OLD, force=False)
        disk.write(5 * SECTOR, NEW, force=True)
        disk.flush()
        disk.cut()
        self.assertEqual(self.sector(5) + self.sector(6), NEW + OLD)

    def test_cuts_tear_writes_between_sectors(self) -> None:
        torn = 0
        for seed in range(20):
            self.image.write_bytes(bytes(64 * SECTOR))
            disk = self.disk(keep=1.0, seed=seed)
            disk.write(0, NEW * 64, force=False)
            disk.cut()
            sectors = {self.sector(number) for number in range(64)}
            self.assertLessEqual(sectors, {NEW, bytes(SECTOR)})
            torn += len(sectors) == 2
        self.assertGreater(torn, 3)
        self.assertLess(torn, 20)


if __name__ == "__main__":
    unittest.main()
