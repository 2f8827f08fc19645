# Reads the block YAML of a cloud-config, and prints one line for each value: its path, a tab, the value.
#
#   ssh_keys.ed25519_private <tab> -----BEGIN ...\nb3Bl...   (a line break is \n, a backslash \\)
#   users.1.name             <tab> pallet                    (the entries of a list count from 0)
#
# It knows mappings, lists, plain and quoted scalars and literal blocks, at any indentation: what a serializer writes.
# It is no YAML parser: no flow style but the empty list and mapping, no anchors, no folded blocks.

function escaped(text) { gsub(/\\/, "&&", text); return text }

# Forgets what is deeper than an indentation.
function close_to(indent) { while (depth > 0 && at[depth] > indent) depth-- }

function path(  i, text) {
  for (i = 1; i <= depth; i++) text = text (i > 1 ? "." : "") (item[i] >= 0 ? item[i] : key[i])
  return text
}

function scalar(text) {
  if (match(text, /^'([^']|'')*'/)) { text = substr(text, 2, RLENGTH - 2); gsub(/''/, "'", text); return escaped(text) }
  # What is escaped between double quotes is left so: line breaks and backslashes are as they shall be printed.
  if (match(text, /^"([^"\\]|\\.)*"/)) { text = substr(text, 2, RLENGTH - 2); gsub(/\\"/, "\"", text); return text }
  sub(/[ ]+#.*$/, "", text)
  return escaped(text)
}

function value(text) {
  sub(/[ ]+$/, "", text)
  if (text ~ /^\|[-+0-9]*$/) { block = path(); block_from = -1; lines = ""; return }
  if (text != "" && text != "[]" && text != "{}") print path() "\t" scalar(text)
}

function end_block() { if (block != "") print block "\t" lines; block = "" }

# What stands after the indentation: a dash and the rest, or a key and the rest, or a scalar.
function node(indent, text,  split_at) {
  if (text ~ /^-( |$)/) {
    # The dash of a list may stand as deep as the key that it is the value of.
    close_to(indent)
    if (depth > 0 && at[depth] == indent && item[depth] >= 0) item[depth]++
    else { depth++; at[depth] = indent; item[depth] = 0 }
    match(text, /^-[ ]*/)
    if (RLENGTH < length(text)) node(indent + RLENGTH, substr(text, RLENGTH + 1))
  } else if (match(text, /^[A-Za-z0-9_-]+:( |$)/)) {
    close_to(indent - 1)
    split_at = index(text, ":")
    depth++; at[depth] = indent; item[depth] = -1; key[depth] = substr(text, 1, split_at - 1)
    text = substr(text, split_at + 1)
    sub(/^[ ]+/, "", text)
    value(text)
  } else value(text)
}

{ sub(/\r$/, "") }
block != "" {
  match($0, /^[ ]*/)
  if (RLENGTH == length($0)) { if (block_from >= 0) lines = lines "\\n"; next }
  if (block_from < 0 && RLENGTH > at[depth]) block_from = RLENGTH
  if (block_from >= 0 && RLENGTH >= block_from) { lines = lines escaped(substr($0, block_from + 1)) "\\n"; next }
  end_block()
}
/^[ ]*(#|$)/ || /^---/ { next }
{ match($0, /^[ ]*/); node(RLENGTH, substr($0, RLENGTH + 1)) }
END { end_block() }
