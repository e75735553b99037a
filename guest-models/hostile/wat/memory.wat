;; A moderator with an initial memory of 2 GiB.
(module
  (memory (export "memory") 32768)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096)
  (func (export "infer:guest/moderation@0.1.0#moderate") (param i32 i32) (result i32) i32.const 1024))
