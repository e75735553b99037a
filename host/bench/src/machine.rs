//! The machine: its hardware, and the load of other processes. Read from /proc on Linux; elsewhere
//! less is known.

use std::fs::read_to_string;

use serde::Serialize;

/// Flags of /proc/cpuinfo that kernels use.
const FLAGS: [&str; 12] = [
    "avx2",
    "f16c",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
    "sve",
];

/// The hardware.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Machine {
    /// Name of the processor.
    pub(super) processor: String,
    /// Processors that this process may use.
    pub(super) cores: usize,
    /// Supported instruction sets that kernels use.
    pub(super) instruction_sets: Vec<String>,
    /// Total memory.
    pub(super) memory_bytes: Option<u64>,
}

impl Machine {
    pub(super) fn here() -> Machine {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = read_to_string("/proc/meminfo").unwrap_or_default();
        Machine {
            processor: processor(&cpuinfo).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            instruction_sets: instruction_sets(&cpuinfo),
            memory_bytes: kilobytes(&memory, "MemTotal"),
        }
    }
}

/// Peak memory of this process, in bytes; 0 if the system does not report it.
pub(super) fn rss_peak_bytes() -> u64 {
    kilobytes(&read_to_string("/proc/self/status").unwrap_or_default(), "VmHWM").unwrap_or(0)
}

/// Processor time, in ticks: of this process, of all processes, and stolen by the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ticks {
    own: u64,
    busy: u64,
    stolen: u64,
    all: u64,
}

impl Ticks {
    pub(super) fn now() -> Option<Ticks> {
        ticks(&read_to_string("/proc/stat").ok()?, &read_to_string("/proc/self/stat").ok()?)
    }

    /// Fractions of the machine's processor time since `self` that others took: other processes,
    /// and other virtual machines.
    pub(super) fn taken_since(&self, now: &Ticks) -> Option<(f64, f64)> {
        let part = |now: u64, then: u64| now.saturating_sub(then) as f64;
        let all = part(now.all, self.all);
        let others = part(now.busy, self.busy) - part(now.own, self.own);
        (all >= 50.0).then(|| ((others / all).max(0.0), part(now.stolen, self.stolen) / all))
    }
}

fn ticks(stat: &str, own: &str) -> Option<Ticks> {
    let numbers: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    let [user, nice, system, idle, iowait, irq, softirq, stolen, ..] = numbers[..] else { return None };
    // Fields after the name, which may contain any character: the 14th and 15th are user and system
    // time.
    let mut fields = own.rsplit(')').next()?.split_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    let own = field()? + field()?;
    let busy = user + nice + system + irq + softirq;
    Some(Ticks { own, busy, stolen, all: busy + stolen + idle + iowait })
}

fn processor(cpuinfo: &str) -> Option<String> {
    let name = value(cpuinfo, "model name").or_else(|| value(cpuinfo, "Model"))?;
    Some(name.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn instruction_sets(cpuinfo: &str) -> Vec<String> {
    let has = value(cpuinfo, "flags").or_else(|| value(cpuinfo, "Features")).unwrap_or_default();
    let has: Vec<_> = has.split_whitespace().collect();
    FLAGS.iter().filter(|flag| has.contains(flag)).map(|flag| (*flag).to_owned()).collect()
}

/// The value after the colon of the first line that begins with `key`.
fn value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    value(text, key)?.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_counters_are_parsed() {
        let x86 =
            "processor\t: 0\nmodel name\t: AMD  EPYC 9\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor : 1\n";
        assert_eq!(processor(x86), Some("AMD EPYC 9".to_owned()));
        assert_eq!(instruction_sets(x86), ["avx2", "avx512_vnni"]);
        let arm = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part : 0xd0b\nModel\t: Raspberry Pi 5\n";
        assert_eq!(processor(arm), Some("Raspberry Pi 5".to_owned()));
        assert_eq!(instruction_sets(arm), ["asimddp"]);
        assert_eq!(processor(""), None);
        assert_eq!(kilobytes("VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\n", "VmHWM"), Some(2 << 20));
        assert!(rss_peak_bytes() > 1 << 20);
    }

    #[test]
    fn stolen_time_is_counted_separately() {
        let own = |user: u64, system: u64| format!("1 (a ) b) R 2 3 4 5 6 7 8 9 10 11 {user} {system} 0 0");
        let then = ticks("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1\n", &own(50, 50)).unwrap();
        let now = ticks("cpu  400 0 200 1300 0 0 0 100 0 0\n", &own(250, 50)).unwrap();
        // Of 1,000 ticks, this process had 200, other processes 200, and other machines 100.
        assert_eq!(then.taken_since(&now), Some((0.2, 0.1)));
        assert_eq!(then.taken_since(&then), None, "too short to measure");
        assert_eq!(ticks("", ""), None);
    }
}
