use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::{Config, Engine, Instance, Module, Store, UpdateDeadline};

use super::chunked::CHUNK;
use super::{interruptible, push_section};

fn engine() -> Engine {
    let mut config = Config::new();
    config.epoch_interruption(true).wasm_memory64(true).wasm_multi_memory(true);
    Engine::new(&config).unwrap()
}

/// An instance of `module`, and a counter of its checks of the clock.
fn instance(module: &Module) -> (Store<()>, Instance, Arc<AtomicUsize>) {
    let checks = Arc::new(AtomicUsize::new(0));
    let mut store = Store::new(module.engine(), ());
    // The deadline has always passed: each check is a call.
    store.set_epoch_deadline(0);
    let counted = checks.clone();
    store.epoch_deadline_callback(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(UpdateDeadline::Continue(0))
    });
    let instance = Instance::new(&mut store, module, &[]).unwrap();
    (store, instance, checks)
}

/// The trap that `run` ended with, and the bytes of the memories afterwards.
fn outcome(module: &Module, arguments: (i64, i64, i64)) -> (Option<String>, Vec<Vec<u8>>) {
    let (mut store, instance, _) = instance(module);
    let run = instance.get_typed_func::<(i64, i64, i64), ()>(&mut store, "run").unwrap();
    let trap = run.call(&mut store, arguments).err().map(|error| error.root_cause().to_string());
    let mut memory = |name| {
        let memory = instance.get_memory(&mut store, name);
        memory.map(|memory| memory.data(&store).to_vec())
    };
    (trap, ["m", "n"].into_iter().filter_map(&mut memory).collect())
}

#[test]
fn long_memory_instructions_work_in_chunks() {
    const C: i64 = CHUNK as i64;
    const SIZE: i64 = 24 << 16;
    let bodies = [
        ("fill", "i32", "(memory.fill $m (local.get 0) (local.get 1) (local.get 2))"),
        ("copy", "i32", "(memory.copy $m $m (local.get 0) (local.get 1) (local.get 2))"),
        ("copy-to-other", "i32", "(memory.copy $n $m (local.get 0) (local.get 1) (local.get 2))"),
        ("init", "i32", "(memory.init $m $d (local.get 0) (local.get 1) (local.get 2))"),
        (
            "init-dropped",
            "i32",
            "(data.drop $d) (memory.init $m $d (local.get 0) (local.get 1) (local.get 2))",
        ),
        ("fill-64", "i64", "(memory.fill $m (local.get 3) (local.get 1) (local.get 5))"),
        ("copy-64", "i64", "(memory.copy $m $m (local.get 3) (local.get 4) (local.get 5))"),
        ("copy-64-to-32", "i64", "(memory.copy $n $m (local.get 0) (local.get 4) (local.get 2))"),
        ("init-64", "i64", "(memory.init $m $d (local.get 3) (local.get 1) (local.get 2))"),
        ("constant", "i32", "(memory.fill $m (local.get 0) (local.get 1) (i32.const 700000))"),
        ("constant-copy", "i32", "(memory.copy $m $m (local.get 0) (local.get 1) (i32.const 700000))"),
        ("short", "i32", "(memory.copy $m $m (local.get 0) (local.get 1) (i32.const 100))"),
    ];
    let arguments = [
        (0, 0, 0),
        (5, 9, 0),
        (SIZE, SIZE, 0),
        (SIZE + 1, 0, 0),
        (0, SIZE + 1, 0),
        (3, 77, 100),
        (1, 5, C),
        (5, 1, C + 1),
        (1, 5, C + 1),
        (7, 3, 3 * C),
        (3, 7, 3 * C + 5),
        (C + 9, 2, 3 * C + 5),
        (2, C + 9, 2 * C + 5),
        (0, 0, SIZE),
        (SIZE - 2 * C, 0, 2 * C),
        (0, 0, SIZE + 1),
        (1, 0, SIZE),
        (0, 1, SIZE),
        (SIZE - C, 0, C + 1),
        (0, SIZE - C, C + 1),
        (0xffff_ffff, 0, 2 * C),
        (0, 0xffff_ffff, 2 * C),
        (0, 0, 0xffff_ffff),
        (0x8000_0000, 0x8000_0000, 0x8000_0000),
        (-1, 0, 2 * C),
        (0, -1, -1),
        (0, 0, i64::MIN),
    ];
    let engine = engine();
    let data: String = (0..700_000).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    for (name, width, body) in bodies {
        let text = format!(
            "(module
                (memory $m (export \"m\") {width} 24 24) (memory $n (export \"n\") 24 24)
                (data $d \"{data}\") (data $e \"0123456789\")
                (func $work (param i32 i32 i32 i64 i64 i64) {body})
                (func (export \"run\") (param i64 i64 i64) (local i64)
                    (loop $on
                        ({width}.store $m ({store}) (i64.mul (local.get 3) (i64.const 0x9E3779B97F4A7C15)))
                        (local.set 3 (i64.add (local.get 3) (i64.const 8)))
                        (br_if $on (i64.lt_u (local.get 3) (i64.const {SIZE}))))
                    (call $work (i32.wrap_i64 (local.get 0)) (i32.wrap_i64 (local.get 1)) (i32.wrap_i64 (local.get 2))
                        (local.get 0) (local.get 1) (local.get 2))))",
            store = if width == "i64" { "local.get 3" } else { "i32.wrap_i64 (local.get 3)" },
        )
        .replace("(i32.store $m", "(i64.store $m");
        let wasm = wat::parse_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let changed = interruptible(&wasm).unwrap();
        assert_eq!(changed.len() > wasm.len(), name != "short", "{name}");
        let [module, changed] = [wasm, changed].map(|wasm| Module::new(&engine, wasm).unwrap());
        for arguments in arguments {
            let (expected, found) = (outcome(&module, arguments), outcome(&changed, arguments));
            assert_eq!(found.0, expected.0, "{name} {arguments:?}");
            assert!(found.1 == expected.1, "{name} {arguments:?}: other bytes");
        }
    }
}

#[test]
fn clock_is_checked_in_each_chunk() {
    let engine = engine();
    for body in [
        "(memory.fill (i32.const 0) (i32.const 7) (local.get 0))",
        "(memory.fill (i32.const 0) (i32.const 7) (i32.const 0x4000000))",
        "(memory.copy (i32.const 8) (i32.const 0) (local.get 0))",
        "(memory.copy (i32.const 0) (i32.const 8) (local.get 0))",
    ] {
        let text = format!("(module (memory 1025) (func (export \"run\") (param i32) {body}))");
        let changed = interruptible(&wat::parse_str(text).unwrap()).unwrap();
        let (mut store, instance, checks) = instance(&Module::new(&engine, changed).unwrap());
        let run = instance.get_typed_func::<i32, ()>(&mut store, "run").unwrap();
        run.call(&mut store, 64 << 20).unwrap();
        assert!(checks.load(Ordering::Relaxed) >= (64 << 20) / CHUNK as usize, "{body}");
    }
}

/// Number of checks of the clock during one call of `run`.
fn checks(engine: &Engine, wasm: &[u8]) -> usize {
    let (mut store, instance, checks) = instance(&Module::new(engine, wasm).unwrap());
    let run = instance.get_typed_func::<i32, ()>(&mut store, "run").unwrap();
    run.call(&mut store, 1).unwrap();
    checks.load(Ordering::Relaxed)
}

#[test]
fn clock_is_checked_along_straight_code() {
    let engine = engine();
    const OPERATORS: usize = 30_000;
    let loads = |count: usize| "(local.set 0 (i32.load (local.get 0)))".repeat(count);
    let module = |body: &str| {
        wat::parse_str(format!("(module (memory 1) (func (export \"run\") (param i32) {body}))")).unwrap()
    };
    let count = OPERATORS / 3;
    // Jumps over the code in their way, and one arm of two.
    let hops =
        |size: usize| format!("(block {0} (br_if 0 (i32.const 1)) {0})", loads(size)).repeat(count / size);
    let arms = |size: usize| format!("(if (i32.const 0) (then) (else {}))", loads(size)).repeat(count / size);
    for body in [
        loads(count),
        format!("(block (block {}))", loads(count)),
        hops(100),
        hops(2_000),
        arms(100),
        arms(2_500),
    ] {
        let wasm = module(&body);
        let (before, after) = (checks(&engine, &wasm), checks(&engine, &interruptible(&wasm).unwrap()));
        assert!(before <= 2 && after >= before + OPERATORS / 8192, "{before} before, {after} after");
    }
    // A function that returns to one that returns, each after some work.
    let work = "(local.set 0 (i32.load (local.get 0)))".repeat(500);
    let text = format!(
        "(module (memory 1)
            (func $down (param i32 i32)
                (if (local.get 1) (then (call $down (local.get 0) (i32.sub (local.get 1) (i32.const 1))))) {work})
            (func (export \"run\") (param i32) (call $down (i32.const 0) (i32.const 100))))"
    );
    let wasm = wat::parse_str(text).unwrap();
    let (before, after) = (checks(&engine, &wasm), checks(&engine, &interruptible(&wasm).unwrap()));
    assert!(before <= 103 && after >= before + 99, "{before} before, {after} after");
}

#[test]
fn short_code_stays_unchanged() {
    for text in [
        "(module)",
        "(module (func (export \"run\") (param i32) (drop (i32.add (local.get 0) (i32.const 1)))))",
        "(module (memory 1) (func (param i32) (loop $on (memory.fill (i32.const 0) (i32.const 0) (i32.const 128)) (br $on))))",
        "(component)",
        "(component (core module (func)) (component (core module (memory 1))))",
    ] {
        let wasm = wat::parse_str(text).unwrap();
        assert_eq!(interruptible(&wasm).unwrap(), wasm, "{text}");
    }
}

#[test]
fn nested_modules_are_changed() {
    let fill =
        "(core module (memory 1) (func (param i32) (memory.fill (i32.const 0) (i32.const 0) (local.get 0))))";
    let wasm = wat::parse_str(format!("(component {fill} (component {fill}))")).unwrap();
    let one = wat::parse_str(format!("(component {fill})")).unwrap();
    let grown = interruptible(&one).unwrap().len() - one.len();
    assert!(grown > 50);
    assert!(interruptible(&wasm).unwrap().len() >= wasm.len() + 2 * grown);
}

#[test]
fn broken_binaries_are_errors() {
    let fill =
        "(core module (memory 1) (func (param i32) (memory.fill (i32.const 0) (i32.const 0) (local.get 0))))";
    let wasm = wat::parse_str(format!("(component {fill} (component {fill}))")).unwrap();
    for end in 0..wasm.len() {
        let _ = interruptible(&wasm[..end]);
    }
    for at in 0..wasm.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut broken = wasm.clone();
            broken[at] = value;
            let _ = interruptible(&broken);
        }
    }
    assert!(interruptible(b"").is_err() && interruptible(b"\0asm\x02\0\0\0").is_err());
    let deep = (0..100).fold(b"\0asm\x0d\0\x01\0".to_vec(), |inner, _| {
        let mut outer = b"\0asm\x0d\0\x01\0".to_vec();
        push_section(&mut outer, 4, &inner);
        outer
    });
    assert!(interruptible(&deep).unwrap_err().contains("64 deep"));
}
