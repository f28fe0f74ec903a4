"""watch.py - while something is measured: the GPU's clock and power as nvidia-smi sees them (nothing is set), and
the table, a row as soon as there is one, so that a run that is stopped leaves what it had."""
import csv
import subprocess
import threading
import time


class Watch:
    def __init__(self):
        self.seen = []  # time, MHz, W
        try:
            self.process = subprocess.Popen(
                ["nvidia-smi", "-i", "0", "--query-gpu=clocks.sm,power.draw", "--format=csv,noheader,nounits", "-lms", "100"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            self.process = None
            return
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            try:
                self.seen.append((time.monotonic(), *(float(v) for v in line.split(","))))
            except ValueError:
                pass

    def mean(self, since):
        """(MHz, W) since then, or empty texts."""
        seen = [s for s in self.seen if s[0] >= since]
        return tuple(round(sum(s[i] for s in seen) / len(seen)) for i in (1, 2)) if seen else ("", "")

    def close(self):
        if self.process:
            self.process.terminate()
            self.process.wait()


class Table:
    def __init__(self, path, columns):
        self.file = open(path, "w", newline="")
        self.writer = csv.DictWriter(self.file, columns)
        self.writer.writeheader()

    def add(self, row):
        self.writer.writerow(row)
        self.file.flush()
