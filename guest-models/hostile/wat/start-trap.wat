;; A moderator that traps during its instantiation.
(module
  (memory (export "memory") 1)
  (func $start unreachable)
  (start $start)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096)
  (func (export "infer:guest/moderation@0.1.0#moderate") (param i32 i32) (result i32) i32.const 1024))
