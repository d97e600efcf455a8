"""Series: tables, arrays and `.ts` files, whole or cut into windows; `settings.Config` names them."""
