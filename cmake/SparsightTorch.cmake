sparsight_note("model forward pass" "OFF" "not looked for yet")
