/* op_table.c - every op, for tests and tools that walk them. */
#include "ops/op.h"
#include "ops/ops.h"

#define OP_ROW(name) &op_##name,
const OpDef *const op_table[] = {OPS(OP_ROW)};
const int op_table_count = sizeof op_table / sizeof *op_table;
