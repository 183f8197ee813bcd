// Ids as the database knows them.
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Whether a row could have this id; asking the database for anything else is an error instead of "unknown". */
export function isRowId(text: string): boolean {
  return UUID.test(text);
}
