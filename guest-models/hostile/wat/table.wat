;; A moderator that grows its table until it is refused, and then flags its input.
(module
  (memory (export "memory") 1)
  (table $table 1 funcref)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096)
  (func (export "infer:guest/moderation@0.1.0#moderate") (param i32 i32) (result i32)
    (loop $grow
      (br_if $grow (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
    ;; The answer at 1024 is all zeros: a verdict without scores or gaps. Its first field is
    ;; `flagged`.
    (i32.store8 offset=4 (i32.const 1024) (i32.const 1))
    i32.const 1024))
